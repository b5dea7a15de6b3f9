use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const AFTER: Duration = Duration::from_millis(200);

/// Reports how it was answered.
struct Reply(Sender<&'static str>);

impl Interrupt for Reply {
    fn interrupt(self) {
        self.0.send("interrupted").unwrap();
    }
}

fn reply() -> (Reply, Receiver<&'static str>) {
    let (sender, receiver) = channel();
    (Reply(sender), receiver)
}

fn shared(after: Duration) -> Arc<Shared<Reply>> {
    let waiting = Waiting::default();
    Arc::new(Shared {
        waiting: Mutex::new(waiting),
        changed: Condvar::new(),
        after,
    })
}

fn caller(number: u32) -> ThreadId {
    ThreadId::new(number).unwrap()
}

fn listed(
    shared: &Arc<Shared<Reply>>,
    number: u32,
    since: Instant,
) -> (Ticket<Reply>, Receiver<&'static str>) {
    let (reply, answers) = reply();
    let slot = Arc::new(Mutex::new(Some(reply)));
    let number = shared.list(caller(number), Arc::clone(&slot), since);
    (
        Ticket {
            reply: slot,
            listed: Some((number, Arc::clone(shared))),
        },
        answers,
    )
}

#[test]
fn only_the_killed_who_waited_long_are_interrupted() {
    let shared = shared(AFTER);
    let start = Instant::now();
    let (_old_killed, first) = listed(&shared, 1, start);
    let (_old_alive, second) = listed(&shared, 2, start);
    let (_new_killed, third) = listed(&shared, 1, start + AFTER);
    shared.sweep(start + AFTER, |thread| thread == caller(1));
    assert_eq!(first.try_recv(), Ok("interrupted"));
    assert!(second.try_recv().is_err());
    assert!(third.try_recv().is_err());
    shared.sweep(start + AFTER * 2, |thread| thread == caller(1));
    assert_eq!(third.try_recv(), Ok("interrupted"));
}

#[test]
fn a_caller_is_looked_at_once_a_sweep_and_not_when_answered() {
    let shared = shared(AFTER);
    let start = Instant::now();
    let tickets: Vec<_> = (0..100).map(|_| listed(&shared, 7, start)).collect();
    let looks = AtomicUsize::new(0);
    let look = |_| {
        looks.fetch_add(1, Ordering::Relaxed);
        true
    };
    shared.sweep(start + AFTER, look);
    shared.sweep(start + AFTER, look);
    assert_eq!(looks.load(Ordering::Relaxed), 1);
    for (ticket, answers) in tickets {
        ticket.answer(|_| panic!("it was answered before"));
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), ["interrupted"]);
    }
    assert!(shared.lock().requests.is_empty());
}

#[test]
fn an_answered_request_is_forgotten() {
    let shared = shared(AFTER);
    let start = Instant::now();
    let (ticket, answers) = listed(&shared, 1, start);
    ticket.answer(|reply| reply.0.send("bytes").unwrap());
    shared.sweep(start + AFTER * 5, |_| true);
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), ["bytes"]);
    assert!(shared.lock().requests.is_empty());
}

#[test]
fn an_answer_and_an_interruption_race_to_one_reply() {
    let shared = shared(Duration::ZERO);
    for _ in 0..500 {
        let (ticket, answers) = listed(&shared, 1, Instant::now());
        std::thread::scope(|scope| {
            scope.spawn(|| shared.sweep(Instant::now(), |_| true));
            scope.spawn(move || ticket.answer(|reply| reply.0.send("bytes").unwrap()));
        });
        assert_eq!(answers.iter().count(), 1);
    }
    assert!(shared.lock().requests.is_empty());
}

#[test]
fn the_watchdog_finds_a_killed_caller_and_ends_with_the_list() {
    // A stopped child that is killed only dies once it is looked for: stand in for it with a
    // probe, and let the real thread run.
    let shared = shared(Duration::from_millis(10));
    let running = Arc::clone(&shared);
    let thread = std::thread::spawn(move || running.run(|thread| thread == caller(1)));
    let (_killed, answers) = listed(&shared, 1, Instant::now());
    let (_alive, silence) = listed(&shared, 2, Instant::now());
    assert_eq!(
        answers.recv_timeout(Duration::from_secs(10)),
        Ok("interrupted")
    );
    assert!(silence.try_recv().is_err());
    shared.lock().closed = true;
    shared.changed.notify_all();
    thread.join().unwrap();
}

#[test]
fn a_dropped_watch_leaves_the_replies_to_their_tickets() {
    let watch = Watch::start(AFTER).unwrap();
    let (reply, answers) = reply();
    let ticket = watch.wait(ThreadId::new(std::process::id()), reply);
    drop(watch);
    ticket.answer(|reply| reply.0.send("bytes").unwrap());
    assert_eq!(answers.recv(), Ok("bytes"));
}
