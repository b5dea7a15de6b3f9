//! The repositories that an environment is read from, put together as one.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use farseek_store::{Chain, ChainOptions, FsRepository, Repository};

use crate::app::App;
use crate::config::PromoteName;
use crate::exit::{self, Failure};
use crate::output::note;

/// Which repositories are read.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Read from this repository too: a configured name, a URL or a path. May be given several
    /// times; replaces the configured ones
    #[arg(short, long = "remote", value_name = "NAME|URL|PATH")]
    remotes: Vec<String>,
    /// Do not read from the local repository, and put nothing into it
    #[arg(long)]
    no_local: bool,
}

/// Repositories that are open.
pub(crate) struct Sources {
    /// All of them, in order, as one.
    pub(crate) repository: Arc<dyn Repository>,
    /// The local one, where it is one of them.
    pub(crate) local: Option<Arc<dyn Repository>>,
    /// Whether there are others.
    pub(crate) has_remotes: bool,
}

impl SourceArgs {
    /// Opens them.
    ///
    /// # Errors
    /// There is none, or one that was asked for by name cannot be opened.
    pub(crate) async fn open(&self, app: &App) -> Result<Sources> {
        let (remotes, refused) = self.remotes(app).await?;
        let local = self.local(app, !remotes.is_empty())?;
        if let (Some(error), true) = (&refused, local.is_some() || !remotes.is_empty()) {
            note(format_args!("warning: left out: {}", exit::message(error)));
        }
        let has_remotes = !remotes.is_empty();
        let mut members = local.iter().cloned().chain(remotes);
        let first = members
            .next()
            .ok_or_else(|| refused.unwrap_or_else(|| self.nothing_to_read(app)))?;
        let rest: Vec<_> = members.collect();
        let options = ChainOptions {
            include_secondary_tags: app.config.fuse.include_secondary_tags,
            ..ChainOptions::default()
        };
        let repository = match rest.is_empty() {
            true => first,
            false => Arc::new(Chain::new(first, rest, options)),
        };
        Ok(Sources {
            repository,
            local,
            has_remotes,
        })
    }

    /// The remotes, and why one of them that nobody asked for by name is left out: it must not
    /// keep the others from being used.
    async fn remotes(
        &self,
        app: &App,
    ) -> Result<(Vec<Arc<dyn Repository>>, Option<anyhow::Error>)> {
        let by_name = !self.remotes.is_empty();
        let names = match by_name {
            true => &self.remotes,
            false => &app.config.filesystem.secondary_repositories,
        };
        let (mut remotes, mut refused) = (Vec::new(), None);
        for name in names {
            match app.remote_of(name, names.len()).await {
                Ok(remote) => remotes.push(remote),
                Err(error) if by_name => return Err(error),
                Err(error) => refused = Some(error),
            }
        }
        Ok((remotes, refused))
    }

    /// The local repository. Where remotes are read and files are to become local it is made, as
    /// SPFS makes it; that it cannot be made is no error.
    fn local(&self, app: &App, has_remotes: bool) -> Result<Option<Arc<dyn Repository>>> {
        if self.no_local {
            return Ok(None);
        }
        let promotes = app.config.reader.promote != PromoteName::Never;
        match app.local()? {
            None if has_remotes && promotes => {
                let root = &app.config.storage.root;
                match FsRepository::create(root, app.fs_options()?) {
                    Ok(repository) => Ok(Some(Arc::new(repository))),
                    Err(error) => {
                        let root = root.display();
                        tracing::info!("no local repository can be made at {root}: {error}");
                        Ok(None)
                    }
                }
            }
            local => Ok(local),
        }
    }

    fn nothing_to_read(&self, app: &App) -> anyhow::Error {
        let root = app.config.storage.root.display();
        let local = if self.no_local {
            "--no-local leaves out the local repository".to_owned()
        } else {
            format!("there is no local repository at {root} yet")
        };
        Failure::not_found(format!(
            "there is no repository to read from: {local}, and no remote is given or configured; \
             say which with --remote NAME|URL|PATH"
        ))
    }
}
