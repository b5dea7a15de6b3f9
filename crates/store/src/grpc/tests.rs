//! What a stock client and a stock server said to each other, message by message.

use std::collections::BTreeMap;
use std::path::Path;

use farseek_object::Digest;
use prost::Message;
use serde_json::Value;

use super::convert::{self, Asked, to_error};
use super::generated as wire;
use super::outcome::Outcome;

/// What was recorded; `None`, with a line that says so, where the fixtures are not here. With
/// `CI=true` that is a failure.
fn recorded(test: &str, file: &str) -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/wire");
    let Ok(bytes) = std::fs::read(path.join(file)) else {
        let line = format!("LEFT OUT: {test}: it needs {}", path.join(file).display());
        let everything = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!everything, "{line}");
        eprintln!("{line}");
        return None;
    };
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn messages(list: &Value) -> Vec<Vec<u8>> {
    list.as_array().unwrap().iter().map(unhex).collect()
}

/// Decodes, and loses nothing: what is encoded again is what came.
fn decoded<M: Message + Default>(bytes: &[u8]) -> M {
    let message = M::decode(bytes).unwrap();
    assert_eq!(message.encode_to_vec(), bytes);
    message
}

/// Decodes both sides of a call.
fn both<Q: Message + Default, A: Message + Default>(call: &Value) -> (Q, Vec<A>) {
    let [request] = messages(&call["request"]).try_into().unwrap();
    let answers = messages(&call["response"]);
    (
        decoded(&request),
        answers.iter().map(|bytes| decoded(bytes)).collect(),
    )
}

fn asked_for(digest: &Option<wire::Digest>) -> Digest {
    convert::to_digest(digest.as_ref(), "asked").unwrap()
}

/// The values of answers that are errors or values; an error has to mean what it says.
fn values<A: Outcome>(answers: Vec<A>) -> Vec<A::Value> {
    let value = |answer: A| match answer.into_outcome().unwrap() {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(to_error(&error, Asked::Anything, "there").is_not_found());
            None
        }
    };
    answers.into_iter().filter_map(value).collect()
}

fn check(path: &str, call: &Value) {
    match path.rsplit('/').next().unwrap() {
        "HasObject" => {
            let (asked, answers) = both::<wire::HasObjectRequest, wire::HasObjectResponse>(call);
            asked_for(&asked.digest);
            assert_eq!(answers.len(), 1);
        }
        "ReadObject" => {
            let (asked, answers) = both::<wire::ReadObjectRequest, wire::ReadObjectResponse>(call);
            for object in values(answers) {
                let digest = asked_for(&asked.digest);
                let object = convert::to_named_object(&digest, Some(&object)).unwrap();
                assert_eq!(object.digest(), digest);
            }
        }
        "FindDigests" => {
            let (_, answers) = both::<wire::FindDigestsRequest, wire::FindDigestsResponse>(call);
            for digest in values(answers) {
                convert::to_digest(Some(&digest), "found").unwrap();
            }
        }
        "WriteObject" => {
            let (asked, answers) =
                both::<wire::WriteObjectRequest, wire::WriteObjectResponse>(call);
            let object = convert::to_object(asked.object.as_ref()).unwrap();
            let again = convert::from_object(&object).unwrap();
            assert_eq!(convert::to_object(Some(&again)).unwrap(), object);
            assert_eq!(values(answers).len(), 1);
        }
        "HasPayload" => {
            let (_, answers) = both::<wire::HasPayloadRequest, wire::HasPayloadResponse>(call);
            assert_eq!(answers.len(), 1);
        }
        "OpenPayload" => {
            let (asked, answers) =
                both::<wire::OpenPayloadRequest, wire::OpenPayloadResponse>(call);
            let [option] = values(answers).try_into().unwrap();
            let digest = asked_for(&asked.digest);
            assert_eq!(
                option.locations,
                [format!("http://127.0.0.1:7787/{digest}")]
            );
        }
        "WritePayload" => {
            let (_, answers) = both::<wire::WritePayloadRequest, wire::WritePayloadResponse>(call);
            let [option] = values(answers).try_into().unwrap();
            assert_eq!(option.url, "http://127.0.0.1:7787/");
        }
        "LsTags" => {
            let (_, answers) = both::<wire::LsTagsRequest, wire::LsTagsResponse>(call);
            let [list] = values(answers).try_into().unwrap();
            assert!(!list.entries.is_empty());
            for entry in &list.entries {
                assert_eq!(
                    convert::from_entry(&convert::to_entry(entry).unwrap()),
                    *entry
                );
            }
        }
        "IterTagSpecs" => {
            let (_, answers) = both::<wire::IterTagSpecsRequest, wire::IterTagSpecsResponse>(call);
            let [specs] = values(answers).try_into().unwrap();
            assert!(!specs.tag_specs.is_empty());
        }
        "ReadTag" => {
            let (_, answers) = both::<wire::ReadTagRequest, wire::ReadTagResponse>(call);
            for history in values(answers) {
                for tag in &history.tags {
                    // The very text of its time included: parents depend on it.
                    assert_eq!(
                        convert::from_tag(&convert::to_tag(Some(tag)).unwrap()),
                        *tag
                    );
                }
            }
        }
        "InsertTag" => {
            let (asked, answers) = both::<wire::InsertTagRequest, wire::InsertTagResponse>(call);
            let tag = asked.tag.as_ref().unwrap();
            assert_eq!(
                convert::from_tag(&convert::to_tag(Some(tag)).unwrap()),
                *tag
            );
            assert_eq!(values(answers).len(), 1);
        }
        "RemoveTagStream" => {
            let (_, answers) =
                both::<wire::RemoveTagStreamRequest, wire::RemoveTagStreamResponse>(call);
            assert_eq!(values(answers).len(), 1);
        }
        other => panic!("{other} is not known here"),
    }
}

#[test]
fn every_recorded_call_is_understood_and_would_be_sent_the_same() {
    let test = "every_recorded_call_is_understood_and_would_be_sent_the_same";
    let Some(commands) = recorded(test, "grpc.json") else {
        return;
    };
    let mut seen = BTreeMap::<String, usize>::new();
    for command in commands.as_array().unwrap() {
        for call in command["calls"].as_array().unwrap() {
            let path = call["path"].as_str().unwrap();
            assert_eq!(call["grpc_status"], "0");
            check(path, call);
            *seen.entry(path.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(seen.values().sum::<usize>(), 353, "{seen:?}");
    assert_eq!(seen.len(), 12, "{seen:?}");
}

#[test]
fn every_recorded_answer_to_an_upload_is_understood() {
    let test = "every_recorded_answer_to_an_upload_is_understood";
    let Some(transfers) = recorded(test, "http.json") else {
        return;
    };
    let mut uploads = 0;
    for transfer in transfers.as_array().unwrap() {
        if !unhex(&transfer["request"]).starts_with(b"POST ") {
            continue;
        }
        let response = unhex(&transfer["response"]);
        let body = response.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        // One chunk: its length in two hexadecimal digits, and two bytes that end the line.
        let length = std::str::from_utf8(&response[body..body + 2]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let message: wire::UploadResponse = decoded(&response[body + 4..body + 4 + length]);
        let result = message.into_outcome().unwrap().unwrap();
        convert::to_digest(result.digest.as_ref(), "uploaded").unwrap();
        assert!(result.size > 0);
        uploads += 1;
    }
    assert_eq!(uploads, 4);
}
