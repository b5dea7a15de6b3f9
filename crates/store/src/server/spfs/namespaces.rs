//! Views of one repository in its namespaces of tags.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use farseek_object::{TagName, TagNamespace};
use futures::future::BoxFuture;
use tokio::sync;

use super::answer::{Shared, misnamed};
use crate::error::{Result, StoreError};
use crate::grpc::convert;
use crate::repository::Repository;

/// Opens the view in a namespace.
pub type OpenNamespace =
    Arc<dyn Fn(TagNamespace) -> BoxFuture<'static, Result<Arc<dyn Repository>>> + Send + Sync>;

/// Views that are kept open: a client can name any number of them.
const VIEWS_MAX: usize = 64;

/// Writers of tags that wait for each other are told apart this finely.
const TURNS: usize = 64;

/// The views, opened when they are asked for.
pub(super) struct Namespaces {
    root: Shared,
    open: Option<OpenNamespace>,
    /// Guards the views that are open; taken for moments, before nothing else.
    views: Mutex<HashMap<TagNamespace, Shared>>,
    /// By a hash of the tag's name: who writes a tag here waits for its turn without holding a
    /// thread, and in order. The repository's own lock is what keeps other processes out.
    turns: Vec<sync::Mutex<()>>,
}

impl Namespaces {
    pub(super) fn new(root: Shared, open: Option<OpenNamespace>) -> Self {
        Self {
            root,
            open,
            views: Mutex::default(),
            turns: (0..TURNS).map(|_| sync::Mutex::new(())).collect(),
        }
    }

    /// The repository as it is seen in the namespace `text`; empty for none.
    ///
    /// # Errors
    /// `Invalid` where it is no namespace, or none can be opened here.
    pub(super) async fn view(&self, text: &str) -> Result<Shared> {
        let namespace = convert::to_namespace(text);
        let namespace = namespace.map_err(|error| misnamed("tag namespace", text, &error))?;
        let Some(namespace) = namespace else {
            return Ok(Arc::clone(&self.root));
        };
        if let Some(view) = self.views().get(&namespace) {
            return Ok(Arc::clone(view));
        }
        let Some(open) = &self.open else {
            return Err(StoreError::Invalid {
                what: "tag namespace",
                text: namespace.to_string(),
                reason: "this server shows one only".to_owned(),
            });
        };
        let view = open(namespace.clone()).await?;
        let mut views = self.views();
        if views.len() >= VIEWS_MAX {
            views.clear();
        }
        views.insert(namespace, Arc::clone(&view));
        Ok(view)
    }

    fn views(&self) -> std::sync::MutexGuard<'_, HashMap<TagNamespace, Shared>> {
        self.views.lock().expect("no holder panics")
    }

    /// Waits for the turn to write the tag `name`.
    pub(super) async fn turn(&self, name: &TagName) -> sync::MutexGuard<'_, ()> {
        let bytes = name.as_str().bytes();
        let hash = bytes.fold(0_usize, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
        self.turns[hash % TURNS].lock().await
    }
}
