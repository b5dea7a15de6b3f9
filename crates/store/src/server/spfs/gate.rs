//! What every call passes: rights, the number of calls, and the bytes of their messages and answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;
use tonic::{Code, Status};

use super::access::{Access, Refusal, Want, Writer};
use super::answer::status;
use super::bulk;
use super::held::{Call, Handing, Held, SLOWEST, Talk};
use super::holder::Holder;
use super::place::Reached;

/// Bytes of a request, but for those that store things: the longest names a digest and a tag.
const REQUEST_MAX: usize = 256 << 10;

/// Calls at once of which more than that has come, and is held until they are done.
const RECEIVING: usize = 32;

/// Bytes of a message of which few are received at once.
const LARGE: usize = bulk::MESSAGE_MAX;

/// So many of those.
const RECEIVING_LARGE: usize = 2;

/// Calls that send whole objects one after the other, at once.
const WALKS: usize = 4;

/// How large an answer may be, which says how it is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// A few bytes.
    Small,
    /// One message of many megabytes: made in turn.
    Large,
    /// Many such messages.
    Walk,
    /// Small messages without end.
    List,
}

impl Weight {
    fn of_call(path: &str) -> Self {
        match path.rsplit('/').next().unwrap_or_default() {
            "ReadObject" | "GetSmall" | "LsTags" | "FindTags" | "IterTagSpecs" | "ReadTag" => {
                Self::Large
            }
            "IterObjects" | "WalkObjects" => Self::Walk,
            "FindDigests" | "IterDigests" => Self::List,
            _ => Self::Small,
        }
    }
}

/// What every call passes.
pub(super) struct Gate {
    routes: Routes,
    access: Access,
    holder: Arc<Holder>,
    calls: Arc<Semaphore>,
    walks: Arc<Semaphore>,
    receiving: Receiving,
    held: Arc<Held>,
    /// How long a client may send nothing of a message that it has begun: it holds a call.
    stall: Duration,
}

/// The turn of a call that makes a large answer.
type Turn = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

impl Gate {
    pub(super) fn new(
        routes: Routes,
        access: Access,
        holder: Arc<Holder>,
        max_calls: usize,
        held: Held,
        stall: Duration,
    ) -> Self {
        Self {
            routes,
            access,
            holder,
            calls: Arc::new(Semaphore::new(max_calls.clamp(1, Semaphore::MAX_PERMITS))),
            walks: Arc::new(Semaphore::new(WALKS)),
            receiving: Receiving::default(),
            held: Arc::new(held),
            stall,
        }
    }

    /// The bytes of all answers.
    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    /// Whether calls wait for others to end.
    pub(super) fn is_short(&self) -> bool {
        self.calls.available_permits() == 0
    }

    /// Whether who asks has any right.
    pub(super) fn is_known(&self, request: &Request<Incoming>) -> bool {
        self.access.check(request.headers(), Want::Read).is_ok()
    }

    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        talk: Arc<Talk>,
    ) -> Response<Body> {
        let path = request.uri().path();
        let want = Want::of_call(path);
        if let Err(refusal) = self.access.check(request.headers(), want) {
            tracing::debug!(path, %refusal, "a call was refused");
            return status_of(refusal).into_http();
        }
        let is_writer = self.access.check(request.headers(), Want::Write).is_ok();
        let writes = want == Want::Write || (is_writer && Want::counts_on(path));
        let (weight, limit) = (Weight::of_call(path), request_limit(path));
        let (name, local) = (request.uri().authority().cloned(), talk.local());
        request.extensions_mut().insert(Reached { name, local });
        if is_writer {
            request.extensions_mut().insert(Writer);
        }
        let call = talk.begin(weight == Weight::List);
        call.keep(permit(&self.calls).await);
        if weight == Weight::Walk {
            call.keep(permit(&self.walks).await);
        }
        let turn = Turn::default();
        let turned = (weight == Weight::Large).then(|| (talk, Arc::clone(&turn)));
        let coming = Coming {
            stall: self.stall,
            limit,
            taken: 0,
            waited: Duration::ZERO,
            rooms: 0,
            receiving: self.receiving.clone(),
            turned,
        };
        let calling = Arc::clone(&call);
        let request = request.map(|body| going_on(body, coming, calling));
        let writing = match (want, writes) {
            (Want::Write, _) => self.holder.writing().await.map(Some),
            (_, true) => self.holder.looking().await,
            (_, false) => Ok(None),
        };
        let writing = match writing {
            Ok(writing) => writing,
            Err(error) => return status(&error).into_http(),
        };
        let response = match self.routes.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        drop(writing);
        handed(response, call, weight).await
    }
}

async fn permit(of: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = Arc::clone(of).acquire_owned().await;
    permit.expect("it is never closed")
}

/// The answer, counted. A large one is made before its turn is over.
async fn handed(response: Response<Body>, call: Arc<Call>, weight: Weight) -> Response<Body> {
    let (head, body) = response.into_parts();
    let mut body = Handing::new(body, call);
    if matches!(weight, Weight::Small | Weight::Large) {
        body.prepare().await;
    }
    Response::from_parts(head, Body::new(body))
}

/// Bytes of a call's message, where they are fewer than any message may have.
fn request_limit(path: &str) -> usize {
    match path.rsplit('/').next() {
        Some("WriteObject" | "PutSmall") => usize::MAX,
        _ => REQUEST_MAX,
    }
}

/// Room for messages on their way in. Who has room for a large one waits for nothing.
#[derive(Debug, Clone)]
struct Receiving {
    some: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Receiving {
    fn default() -> Self {
        Self {
            some: Arc::new(Semaphore::new(RECEIVING)),
            large: Arc::new(Semaphore::new(RECEIVING_LARGE)),
        }
    }
}

/// What is known of a message that is coming.
struct Coming {
    stall: Duration,
    limit: usize,
    /// Bytes that have come.
    taken: usize,
    /// How long they were waited for, since there was room for them.
    waited: Duration,
    /// How much room it has been given: none, some, or that of a large one.
    rooms: usize,
    receiving: Receiving,
    turned: Option<(Arc<Talk>, Turn)>,
}

impl Coming {
    /// How long the next bytes may take. Who has been given room that others wait for may not send
    /// on for ever.
    fn patience(&self) -> Duration {
        if self.rooms == 0 {
            return self.stall;
        }
        let written_in = Duration::from_secs(self.taken as u64 / SLOWEST);
        let left = (self.stall + written_in).saturating_sub(self.waited);
        left.min(self.stall)
    }

    /// Waits for room for what has come.
    async fn make_room(&mut self, call: &Call) {
        let needed = usize::from(self.taken > REQUEST_MAX) + usize::from(self.taken > LARGE);
        for room in self.rooms..needed {
            let of = [&self.receiving.some, &self.receiving.large][room];
            call.keep(permit(of).await);
        }
        self.rooms = self.rooms.max(needed);
    }

    /// The next bytes of `body`; `None` at the end, for which it waits for its turn, where there is
    /// one to wait for: who is still sending holds nobody up.
    async fn next(
        &mut self,
        body: &mut Incoming,
        call: &Call,
    ) -> Option<Result<Frame<Bytes>, Status>> {
        let began = Instant::now();
        let frame = tokio::time::timeout(self.patience(), body.frame()).await;
        if self.rooms > 0 {
            self.waited += began.elapsed();
        }
        let status = match frame {
            Ok(None) => {
                if let Some((talk, turn)) = self.turned.take() {
                    let permit = talk.turn().await;
                    *turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
                }
                return None;
            }
            Ok(Some(Ok(frame))) => {
                self.taken += frame.data_ref().map_or(0, Bytes::len);
                if self.taken <= self.limit {
                    self.make_room(call).await;
                    return Some(Ok(frame));
                }
                let limit = self.limit;
                Status::out_of_range(format!("such a message may have up to {limit} bytes"))
            }
            Ok(Some(Err(error))) => Status::cancelled(error.to_string()),
            Err(_) => {
                let words = format!("nothing came of the message for {} s", self.stall.as_secs());
                Status::deadline_exceeded(words)
            }
        };
        Some(Err(status))
    }
}

/// A request's body, which has to go on, not for too long, and as far as there is room for it.
fn going_on(
    body: Incoming,
    coming: Coming,
    call: Arc<Call>,
) -> impl hyper::body::Body<Data = Bytes, Error = Status> {
    let start = Some((body, coming, call));
    let frames = stream::unfold(start, |state| async move {
        let (mut body, mut coming, call) = state?;
        match coming.next(&mut body, &call).await? {
            Ok(frame) => Some((Ok(frame), Some((body, coming, call)))),
            Err(status) => Some((Err(status), None)),
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

fn status_of(refusal: Refusal) -> Status {
    let code = match refusal {
        Refusal::Stranger => Code::Unauthenticated,
        Refusal::ReadOnly | Refusal::Removal => Code::PermissionDenied,
    };
    Status::new(code, refusal.to_string())
}
