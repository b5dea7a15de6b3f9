//! The protocol's convention for results: most answers are either an error or a value.
//!
//! Neither of the two is a third case, which only a broken peer sends.

use super::generated as wire;

/// An answer that is an error or a value.
pub(crate) trait Outcome: Sized {
    /// What it holds when the call went well.
    type Value;

    /// What the answer says; `None` where it says nothing.
    fn into_outcome(self) -> Option<Result<Self::Value, wire::Error>>;

    /// The answer that says `outcome`.
    fn from_outcome(outcome: Result<Self::Value, wire::Error>) -> Self;
}

/// Implements [`Outcome`] for an answer, the module of its `oneof`, and its value.
macro_rules! outcomes {
    ($($answer:ident, $module:ident, $value:ty;)*) => {$(
        impl Outcome for wire::$answer {
            type Value = $value;

            fn into_outcome(self) -> Option<Result<$value, wire::Error>> {
                self.result.map(|result| match result {
                    wire::$module::Result::Ok(value) => Ok(value),
                    wire::$module::Result::Error(error) => Err(error),
                })
            }

            fn from_outcome(outcome: Result<$value, wire::Error>) -> Self {
                let result = match outcome {
                    Ok(value) => wire::$module::Result::Ok(value),
                    Err(error) => wire::$module::Result::Error(error),
                };
                Self { result: Some(result) }
            }
        }
    )*};
}

outcomes! {
    ReadObjectResponse, read_object_response, wire::Object;
    FindDigestsResponse, find_digests_response, wire::Digest;
    IterObjectsResponse, iter_objects_response, wire::Object;
    WalkObjectsResponse, walk_objects_response, wire::WalkedObject;
    WriteObjectResponse, write_object_response, wire::Ok;
    RemoveObjectResponse, remove_object_response, wire::Ok;
    RemoveObjectIfOlderThanResponse, remove_object_if_older_than_response, bool;
    IterDigestsResponse, iter_digests_response, wire::Digest;
    WritePayloadResponse, write_payload_response, wire::UploadOption;
    OpenPayloadResponse, open_payload_response, wire::DownloadOption;
    RemovePayloadResponse, remove_payload_response, wire::Ok;
    UploadResponse, upload_response, wire::UploadResult;
    LsTagsResponse, ls_tags_response, wire::EntryList;
    ResolveTagResponse, resolve_tag_response, wire::Tag;
    FindTagsResponse, find_tags_response, wire::FoundTags;
    IterTagSpecsResponse, iter_tag_specs_response, wire::TagSpecs;
    ReadTagResponse, read_tag_response, wire::TagHistory;
    InsertTagResponse, insert_tag_response, wire::Ok;
    RemoveTagStreamResponse, remove_tag_stream_response, wire::Ok;
    RemoveTagResponse, remove_tag_response, wire::Ok;
}
