//! The gRPC half: from a method's path and a message to the messages of its answer.

use farseek_object::{Digest, Tag, TagSpec};
use message::{from_wire, to_wire};

use super::shelf::Shelf;
use super::wire::{Message, digest, field, number, ok, other, unknown};

/// No message to a stock server is larger.
pub(super) const DECODE_MAX: usize = 4 << 20;

/// What a call gives: messages, or gRPC's "not implemented".
pub(super) type Answer = Option<Vec<Vec<u8>>>;

/// Answers a call. `payloads` is the root that locations of payloads begin with.
pub(super) fn answer(shelf: &Shelf, payloads: &str, method: &str, request: &[u8]) -> Answer {
    let request = Message::new(request);
    let one = |message: Vec<u8>| Some(vec![message]);
    match method {
        "/spfs.Repository/Ping" => one(Vec::new()),
        "/spfs.DatabaseService/HasObject" => one(number(
            1,
            u64::from(shelf.has("objects", &request.digest(1))),
        )),
        "/spfs.DatabaseService/ReadObject" => one(read_object(shelf, &request.digest(1))),
        "/spfs.DatabaseService/FindDigests" => Some(find(shelf, &request.message(1))),
        "/spfs.DatabaseService/WriteObject" => {
            let stored = shelf.store_object(request.message(1).bytes(7));
            one(stored.map_or_else(|error| other(&error), |()| ok(&[])))
        }
        "/spfs.DatabaseService/RemoveObject" => {
            shelf.remove("objects", &request.digest(1));
            one(ok(&[]))
        }
        "/spfs.PayloadService/IterDigests" => {
            let digests = shelf.digests("payloads");
            Some(digests.iter().map(|found| ok(&digest(found))).collect())
        }
        "/spfs.PayloadService/HasPayload" => one(number(
            3,
            u64::from(shelf.has("payloads", &request.digest(1))),
        )),
        "/spfs.PayloadService/WritePayload" => one(ok(&field(1, payloads.as_bytes()))),
        "/spfs.PayloadService/OpenPayload" => {
            let location = format!("{payloads}{}", request.digest(1));
            one(ok(&field(1, location.as_bytes())))
        }
        "/spfs.PayloadService/RemovePayload" => {
            let found = request.digest(1);
            one(match shelf.remove("payloads", &found) {
                true => ok(&[]),
                false => unknown(2, &found.to_string()),
            })
        }
        method => tags(shelf, method, &request).map(|message| vec![message]),
    }
}

fn read_object(shelf: &Shelf, found: &Digest) -> Vec<u8> {
    match shelf.object(found) {
        Some(bytes) => ok(&field(7, &bytes)),
        None => unknown(2, &found.to_string()),
    }
}

fn find(shelf: &Shelf, criteria: &Message<'_>) -> Vec<Vec<u8>> {
    let prefix = criteria.message(2).bytes(1);
    let digests = shelf.digests("objects").into_iter();
    let matching = digests.filter(|found| found.as_bytes().starts_with(prefix));
    matching.map(|found| ok(&digest(&found))).collect()
}

fn tags(shelf: &Shelf, method: &str, request: &Message<'_>) -> Option<Vec<u8>> {
    Some(match method {
        "/spfs.TagService/LsTags" => {
            let entries = shelf.folder(&request.text(2), &request.text(1));
            let entry = |(kind, name): &(u64, String)| field(2, &field(*kind, name.as_bytes()));
            ok(&entries.iter().flat_map(entry).collect::<Vec<_>>())
        }
        "/spfs.TagService/ResolveTag" => resolve(shelf, &request.text(3), &request.text(2)),
        "/spfs.TagService/ReadTag" => {
            let name = request.text(1);
            match shelf.history(&request.text(2), &name) {
                None => unknown(3, &name),
                Some(history) => {
                    let versions = history.newest_first();
                    ok(&versions
                        .flat_map(|tag| field(1, &to_wire(tag)))
                        .collect::<Vec<_>>())
                }
            }
        }
        "/spfs.TagService/InsertTag" => match from_wire(&request.message(1)) {
            None => other("that is no tag"),
            Some(tag) => match shelf.insert_tag(&request.text(2), tag) {
                Ok(()) => ok(&[]),
                Err(error) => other(&error.to_string()),
            },
        },
        "/spfs.TagService/RemoveTag" => match from_wire(&request.message(1)) {
            None => other("that is no tag"),
            Some(tag) => match shelf.remove_tag(&request.text(2), &tag) {
                true => ok(&[]),
                false => unknown(3, tag.name.as_str()),
            },
        },
        "/spfs.TagService/RemoveTagStream" => {
            let name = request.text(1);
            match shelf.remove_history(&request.text(2), &name) {
                true => ok(&[]),
                false => unknown(3, &name),
            }
        }
        _ => return None,
    })
}

fn resolve(shelf: &Shelf, namespace: &str, spec: &str) -> Vec<u8> {
    let find = || -> Option<Tag> {
        let parsed: TagSpec = spec.parse().ok()?;
        let history = shelf.history(namespace, parsed.name.as_str())?;
        history.version(parsed.version).cloned()
    };
    find().map_or_else(|| unknown(3, spec), |tag| ok(&to_wire(&tag)))
}

/// Tags as messages, by way of their stored form: times need no calendar here.
mod message {
    use farseek_object::Tag;

    use super::super::wire::{Message, digest, field};

    /// The message of a tag, its time as SPFS writes it.
    pub(super) fn to_wire(tag: &Tag) -> Vec<u8> {
        let time = tag.time.to_string();
        [
            field(1, tag.name.org().as_bytes()),
            field(2, tag.name.name().as_bytes()),
            field(3, &digest(&tag.target)),
            field(4, &digest(&tag.parent)),
            field(5, tag.user.as_bytes()),
            field(6, &field(1, time.as_bytes())),
        ]
        .concat()
    }

    /// The tag of a message.
    pub(super) fn from_wire(message: &Message<'_>) -> Option<Tag> {
        // `YYYY-MM-DD HH:MM:SS[.f] UTC` is RFC 3339 but for two places.
        let time = message.message(6).text(1);
        let time = time.strip_suffix(" UTC").map_or_else(
            || time.clone(),
            |time| format!("{}+00:00", time.replacen(' ', "T", 1)),
        );
        let text = |text: &str| [text.as_bytes(), &[0]].concat();
        let stored = [
            text(&message.text(1)),
            text(&message.text(2)),
            message.digest(3).as_bytes().to_vec(),
            text(&message.text(5)),
            text(&time),
            message.digest(4).as_bytes().to_vec(),
        ]
        .concat();
        Tag::decode(&stored).ok()
    }
}
