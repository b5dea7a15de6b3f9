//! From text to a [`Location`]: pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use farseek_object::ObjectError;
use url::{Url, form_urlencoded};

use super::chain::{self, Names};
use super::{Location, Place, grpc};
use crate::bucket::{BucketAddress, Kind};
use crate::error::StoreError;
use crate::grpc::{GrpcOptions, GrpcRepository};

/// What may follow `?`.
const PARAMETERS: [&str; 4] = ["create", "lazy", "tag_namespace", "when"];

/// Names that differ in at most this many places are worth suggesting.
const MAX_DISTANCE: usize = 3;

/// Parses an address, or says in words what is wrong with it. Members of a chain may be `names`.
pub(super) fn parse(text: &str, names: &Names<'_>) -> Result<Location, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.contains('\0') {
        return Err("it contains a NUL".to_owned());
    }
    match split_scheme(text) {
        Some((scheme, rest)) if chain::is_scheme(&scheme) => chain::parse(rest, names),
        Some((scheme, rest)) => parse_scheme(&scheme, rest, text),
        None => parse_path(text),
    }
}

/// The scheme in lower case and what follows its colon, where there is one.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let is_scheme = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    is_scheme.then(|| (scheme.to_ascii_lowercase(), rest))
}

fn parse_scheme(scheme: &str, rest: &str, text: &str) -> Result<Location, String> {
    match scheme {
        "file" => parse_file(rest),
        "http" | "https" => parse_web(text),
        "tar" => parse_tar(rest),
        "grpc" | "http2" | "grpcs" => parse_grpc(text),
        _ => match Kind::of_scheme(scheme) {
            Some(kind) => parse_bucket(kind, rest),
            None => Err(format!(
                "there is no kind of repository called '{scheme}': it may be file, http, https, \
                 grpc, grpcs, s3, gs, az, tar, proxy or fallback (write ./ before the name of a \
                 directory)"
            )),
        },
    }
}

/// A path as it stands.
fn parse_path(text: &str) -> Result<Location, String> {
    if !text.contains('/') && !matches!(text, "." | "..") {
        return Err(format!(
            "it is neither a URL nor a path: write ./{text} for a directory"
        ));
    }
    let parameters = text.rsplit_once('?').filter(|(_, parameters)| {
        let name = parameters.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| PARAMETERS.contains(&name))
    });
    match parameters {
        None => Ok(Location::directory(text)),
        Some((path, parameters)) => with_parameters(Location::directory(path), parameters),
    }
}

/// What follows `file:`.
fn parse_file(rest: &str) -> Result<Location, String> {
    let (path, parameters) = local_path("file", rest)?;
    with_parameters(Location::directory(path), parameters)
}

/// What follows `tar:`.
fn parse_tar(rest: &str) -> Result<Location, String> {
    let (path, parameters) = local_path("tar", rest)?;
    with_parameters(Location::at(Place::Tar(path.into())), parameters)
}

/// The path, percent-decoded, and the parameters that follow it.
fn local_path<'a>(scheme: &str, rest: &'a str) -> Result<(OsString, &'a str), String> {
    let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let path = match path.strip_prefix("//") {
        None => path,
        Some(authority) => {
            let at = authority.find('/').unwrap_or(authority.len());
            let (host, path) = authority.split_at(at);
            if !matches!(host, "" | "localhost") {
                let shown = without_credentials(&format!("{scheme}://{authority}"));
                let authority = &shown[scheme.len() + "://".len()..];
                return Err(format!(
                    "what follows {scheme}:// is taken for a host: write {scheme}:/{authority}"
                ));
            }
            path
        }
    };
    if path.is_empty() {
        return Err("it has no path".to_owned());
    }
    let path = OsString::from_vec(percent_decode(path.as_bytes()));
    if path.as_encoded_bytes().contains(&0) {
        return Err("its path contains a NUL".to_owned());
    }
    Ok((path, parameters))
}

fn parse_web(text: &str) -> Result<Location, String> {
    let mut url = Url::parse(text).map_err(|error| error.to_string())?;
    let parameters = url.query().unwrap_or_default().to_owned();
    url.set_query(None);
    url.set_fragment(None);
    let location = with_parameters(Location::at(Place::Web(url)), &parameters)?;
    if location.create {
        return Err("a repository cannot be created through a web server".to_owned());
    }
    Ok(location)
}

fn parse_grpc(text: &str) -> Result<Location, String> {
    let mut url = Url::parse(text).map_err(|error| error.to_string())?;
    let parameters = url.query().unwrap_or_default().to_owned();
    url.set_query(None);
    url.set_fragment(None);
    GrpcRepository::open(&url, GrpcOptions::default()).map_err(|error| match error {
        StoreError::Invalid { reason, .. } => reason,
        error => error.to_string(),
    })?;
    let location = Location::at(Place::Grpc(grpc::Place::new(url)));
    let location = with_parameters(location, &parameters)?;
    if location.create {
        return Err("a repository cannot be created through a server".to_owned());
    }
    Ok(location)
}

/// What follows the colon of a bucket's address: its path is percent-decoded.
fn parse_bucket(kind: Kind, rest: &str) -> Result<Location, String> {
    let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.strip_prefix("//").unwrap_or(path);
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if bucket.contains('@') {
        return Err("keys are given as parameters, not before an @".to_owned());
    }
    let prefix = String::from_utf8(percent_decode(prefix.as_bytes()));
    let prefix = prefix.map_err(|_| "its prefix is not UTF-8".to_owned())?;
    let address = BucketAddress::new(kind, bucket, &prefix)?;
    with_parameters(Location::at(Place::Bucket(address)), parameters)
}

pub(super) fn with_parameters(
    mut location: Location,
    parameters: &str,
) -> Result<Location, String> {
    for (name, value) in form_urlencoded::parse(parameters.as_bytes()) {
        if let Place::Grpc(place) = &mut location.place
            && place.set(&name, &value)?
        {
            continue;
        }
        if let Place::Bucket(address) = &mut location.place
            && address.set(&name, &value)?
        {
            continue;
        }
        match &*name {
            "create" => location.create = parse_bool(&name, &value)?,
            "lazy" => location.lazy = parse_bool(&name, &value)?,
            "tag_namespace" => {
                let namespace = value.parse();
                location.tag_namespace = Some(namespace.map_err(|e: ObjectError| e.to_string())?);
            }
            "when" => {
                // A query's '+' is a space, and a time zone has one: people do not write %2B.
                let when = match value.contains('T') {
                    true => value.replace(' ', "+").parse(),
                    false => value.parse(),
                };
                location.when = Some(when.map_err(|e: ObjectError| e.to_string())?);
            }
            name => return Err(unknown_parameter(name, &location.place)),
        }
    }
    Ok(location)
}

pub(super) fn parse_bool(name: &str, value: &str) -> Result<bool, String> {
    value
        .parse()
        .map_err(|_| format!("{name} is true or false, not '{value}'"))
}

fn unknown_parameter(name: &str, place: &Place) -> String {
    let special: Vec<&str> = match place {
        Place::Grpc(_) => grpc::PARAMETERS.to_vec(),
        Place::Bucket(address) => {
            let parameters = address.kind.parameters().iter();
            parameters.map(|(name, _)| *name).collect()
        }
        Place::Directory(_) | Place::Web(_) | Place::Tar(_) | Place::Chain(_) => Vec::new(),
    };
    let known = [&PARAMETERS, special.as_slice()].concat();
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    let nearest = known.iter().min_by_key(|known| distance(known));
    match nearest.filter(|known| distance(known) <= MAX_DISTANCE) {
        Some(nearest) => format!("unknown parameter '{name}': did you mean '{nearest}'?"),
        None => format!("unknown parameter '{name}': there are {}", known.join(", ")),
    }
}

/// Decodes `%41` and the like. A `%` that does not begin one stands for itself, for SPFS writes
/// addresses without encoding.
fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = match after {
            [high, low, ..] if byte == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        decoded.push(code.map_or(byte, |(high, low)| high << 4 | low));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

/// An address as messages show it: no credentials, also none of a chain's members.
pub(super) fn shown(text: &str) -> String {
    match split_scheme(text) {
        Some((scheme, rest)) if chain::is_scheme(&scheme) => {
            let query = rest.find('?').map_or("", |_| "?\u{2026}");
            format!("{scheme}:{query}")
        }
        // Keys may be among the parameters.
        Some((scheme, _)) if Kind::of_scheme(&scheme).is_some() => match text.split_once('?') {
            Some((address, _)) => format!("{}?\u{2026}", without_credentials(address)),
            None => without_credentials(text),
        },
        _ => without_credentials(text),
    }
}

/// `text` without the credentials of a URL, also of one that is mistyped: without what stands
/// before the `@` in its first part, the scheme and its slashes aside.
pub(super) fn without_credentials(text: &str) -> String {
    let start = match split_scheme(text) {
        Some((scheme, rest)) if rest.starts_with('/') => {
            let slashes = rest.len() - rest.trim_start_matches('/').len();
            scheme.len() + 1 + slashes
        }
        _ => 0,
    };
    let first = text[start..].split(['/', '?', '#']).next();
    match first.unwrap_or_default().rfind('@') {
        None => text.to_owned(),
        Some(at) => format!("{}{}", &text[..start], &text[start + at + 1..]),
    }
}
