//! What is behind the layer that logs and spoils: a service in this process, or a server of its own.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpStream;

use super::BucketServer;
use super::answer::AnswerBody;
use super::google::Admitted;

/// Who keeps the bucket.
#[derive(Debug)]
pub(super) enum Store {
    Here(S3Service),
    /// Somebody else, at this address.
    There(SocketAddr),
}

impl Store {
    /// The bucket of the folder `root`; who has no key may read while it is `public`.
    pub(super) fn here(root: &Path, public: Arc<AtomicBool>) -> io::Result<Self> {
        let files = s3s_fs::FileSystem::new(root);
        let files = files.map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut builder = S3ServiceBuilder::new(files);
        let key = SimpleAuth::from_single(BucketServer::ACCESS_KEY, BucketServer::SECRET_KEY);
        builder.set_auth(key);
        builder.set_access(Doorkeeper { public });
        Ok(Self::Here(builder.build()))
    }

    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> io::Result<Response<AnswerBody>> {
        match self {
            Self::Here(service) => {
                let answer = Service::call(service, request).await;
                let answer = answer.map_err(|error| io::Error::other(format!("{error:?}")))?;
                Ok(answer.map(|body| AnswerBody::new(body.map_err(io::Error::other))))
            }
            Self::There(address) => forward(*address, request).await,
        }
    }
}

async fn forward(
    address: SocketAddr,
    request: Request<Incoming>,
) -> io::Result<Response<AnswerBody>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(io::Error::other)?;
    // That it broke, the answer says.
    tokio::spawn(async move { drop(connection.await) });
    let answer = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    Ok(answer.map(|body| AnswerBody::new(body.map_err(io::Error::other))))
}

/// Who has the key may do anything; others may read, where the bucket is public.
struct Doorkeeper {
    public: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl S3Access for Doorkeeper {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> s3s::S3Result<()> {
        let reads = matches!(context.s3_op().name(), "GetObject" | "HeadObject");
        let open = reads && self.public.load(Ordering::SeqCst);
        let admitted = context.extensions_mut().get::<Admitted>().is_some();
        match context.credentials() {
            None if !open && !admitted => Err(s3s::s3_error!(AccessDenied, "Access Denied")),
            _ => Ok(()),
        }
    }
}
