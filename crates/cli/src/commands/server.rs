//! `farseek server`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use farseek_store::{
    Access, Location, OpenNamespace, OpenOptions, PartialUploads, Repository, Right, ServerTls,
    SpfsServer, SpfsServerOptions,
};
use serde_json::json;
use url::Url;

use crate::app::App;
use crate::args::{JsonArgs, RepositoryArgs};
use crate::commands::serve::resolve;
use crate::exit::Failure;
use crate::output::note;
use crate::signals::Signals;

const EXAMPLES: &str = "\
Examples:
  farseek server                                   # the local repository, for this machine alone
  farseek server 0.0.0.0:7737 0.0.0.0:7787 --token-file tokens --tls-cert c.pem --tls-key k.pem
  farseek server 10.0.0.7:7737 10.0.0.7:7787 --insecure --read-only -r /srv/repo
  spfs -c remote.studio.address=http2://10.0.0.7:7737 ls-tags -r studio

Clients of SPFS send no token and no TLS: let them in with --insecure, on a network that you trust.
In a token file each line is 'read TOKEN' or 'write TOKEN'.";

/// `farseek server`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServerArgs {
    /// Where to take calls; port 0 takes a free one
    #[arg(value_name = "GRPC", default_value = "127.0.0.1:7737")]
    grpc: String,
    /// Where to give and take payloads; port 0 takes a free one
    #[arg(value_name = "HTTP", default_value = "127.0.0.1:7787")]
    http: String,
    /// The URL by which clients reach the payloads, where it is not the host they call, with the
    /// port of HTTP
    #[arg(long, value_name = "URL")]
    payloads_root: Option<String>,
    /// Let in who has a token of this file, and nobody else
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Let in whoever can connect, also from other machines
    #[arg(long, conflicts_with = "token_file")]
    insecure: bool,
    /// Let nobody write
    #[arg(long)]
    read_only: bool,
    /// Let who may write remove objects, payloads and tags as well
    #[arg(long, conflicts_with = "read_only")]
    allow_removal: bool,
    /// Encrypt with this certificate: a PEM file, with the chain to its root
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key: a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Serves until it is interrupted.
pub(crate) async fn run(args: ServerArgs, app: &mut App) -> Result<()> {
    let (grpc, http) = (resolve(&args.grpc).await?, resolve(&args.http).await?);
    let access = access(&args, [grpc, http])?;
    let remote = args.repository.remote.as_deref();
    let options = SpfsServerOptions {
        payload_root: args.payloads_root.as_deref().map(root).transpose()?,
        access,
        tls: tls(&args)?,
        namespaces: namespaces(app, remote)?,
        partial_uploads: partial_uploads(app, remote)?,
        ..SpfsServerOptions::default()
    };
    let repository = app.repository(remote).await?;
    let location = repository.location().to_owned();
    let mut signals = Signals::listen()?;
    let mut server = SpfsServer::bind(repository, grpc, http, options).await?;
    say(&args, &server, &location, app)?;
    tokio::select! {
        ended = server.wait() => return Ok(ended?),
        () = signals.next() => server.shutdown(),
    }
    tokio::select! {
        ended = server.wait() => Ok(ended?),
        () = signals.next() => Ok(()),
    }
}

/// Says where it listens, once it does.
fn say(args: &ServerArgs, server: &SpfsServer, location: &str, app: &mut App) -> Result<()> {
    let (grpc, http) = (server.grpc_addr(), server.http_addr());
    let scheme = if args.tls_cert.is_some() {
        "https"
    } else {
        "http"
    };
    if args.json.json {
        let started = json!({
            "repository": location,
            "grpc": format!("grpc://{grpc}"),
            "http": format!("{scheme}://{http}"),
        });
        app.output.line(started)?;
    } else {
        app.output.line(format_args!(
            "serving {location} at grpc://{grpc}, payloads at {scheme}://{http}"
        ))?;
    }
    app.output.finish()
}

/// Who may do what: on more than loopback that has to be said.
fn access(args: &ServerArgs, addresses: [SocketAddr; 2]) -> Result<Access> {
    let far = addresses
        .into_iter()
        .find(|address| !address.ip().is_loopback());
    let access = match (&args.token_file, far) {
        (Some(file), _) => {
            let text = std::fs::read_to_string(file);
            let text = text.with_context(|| format!("cannot read {}", file.display()))?;
            let access = Access::tokens(&text);
            if far.is_some() && args.tls_cert.is_none() {
                note("warning: without --tls-cert, tokens and data cross the network in the clear");
            }
            access.with_context(|| format!("{} is not a token file", file.display()))?
        }
        (None, Some(far)) if !args.insecure => {
            return Err(Failure::usage(format!(
                "{far} is not loopback: say who may connect with --token-file, or let everybody \
                 in with --insecure"
            )));
        }
        (None, Some(far)) => {
            let may = if args.read_only {
                "read"
            } else {
                "read and write to"
            };
            note(format_args!(
                "warning: {far} is not loopback: whoever can connect can {may} the repository"
            ));
            Access::anyone(Right::Write)
        }
        (None, None) => Access::anyone(Right::Write),
    };
    let access = access.with_removal(args.allow_removal);
    Ok(match args.read_only {
        true => access.at_most(Right::Read),
        false => access,
    })
}

fn tls(args: &ServerArgs) -> Result<Option<ServerTls>> {
    let files = args.tls_cert.as_ref().zip(args.tls_key.as_ref());
    let tls = files.map(|(certificate, key)| ServerTls::load(certificate, key));
    Ok(tls.transpose()?)
}

fn root(text: &str) -> Result<Url> {
    let url = text.parse::<Url>().ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.filter(|url| url.query().is_none() && url.fragment().is_none())
        .ok_or_else(|| {
            Failure::usage(format!(
                "'{text}' is no root for payloads: write a URL such as http://repo.example:7787"
            ))
        })
}

/// Uploads that broke off wait where a repository on disk has what is being written.
fn partial_uploads(app: &App, remote: Option<&str>) -> Result<Option<PartialUploads>> {
    let location = location(app, remote)?;
    let directory = location.path().filter(|path| path.is_dir());
    Ok(directory.map(|root| PartialUploads::in_directory(root.join("payloads/work"))))
}

/// The repository that is served.
fn location(app: &App, remote: Option<&str>) -> Result<Location> {
    Ok(match remote {
        Some(remote) => app.address(remote)?.parse::<Location>()?,
        None => Location::directory(&app.config.storage.root)
            .with_tag_namespace(app.fs_options()?.tag_namespace),
    })
}

/// How clients' namespaces are opened: as views of the same repository, unless what is served is
/// one of its namespaces itself.
fn namespaces(app: &App, remote: Option<&str>) -> Result<Option<OpenNamespace>> {
    let location = location(app, remote)?;
    if location.tag_namespace().is_some() {
        return Ok(None);
    }
    let options = OpenOptions {
        stall: app.stall(),
        environment: app.bucket_environment(),
        ..OpenOptions::default()
    };
    Ok(Some(Arc::new(move |namespace| {
        let (location, options) = (location.clone(), options.clone());
        Box::pin(async move {
            let location = location.with_tag_namespace(Some(namespace));
            let view: Arc<dyn Repository> = farseek_store::open(&location, &options).await?;
            Ok(view)
        })
    })))
}
