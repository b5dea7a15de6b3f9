//! `proxy:` and `fallback:`: several addresses read as one. Pure, but for opening them.
//!
//! Both are a [`Chain`], which goes on to the next member for more reasons than SPFS's proxy does
//! (it is down, it lacks the payload of a blob it has), and lists what any member has where SPFS
//! lists the primary alone. SPFS's fallback also writes what it found in a later member to the
//! primary while it reads. Ours does not: a read that may write needs room, rights and time that
//! its caller has not granted, and half a file would have to be thrown away; whole and verified
//! payloads become local by the reader's promotion, and whole graphs by a pull. So both words mean
//! the same here, and a fallback's primary need not be a directory.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use url::form_urlencoded::{self, Serializer};

use super::{Location, OpenOptions, Place as AnyPlace, open, parse};
use crate::chain::{Chain, ChainOptions};
use crate::error::Result;
use crate::repository::Repository;

/// Proxies within proxies: far more than anyone has, few enough to end a hostile address.
const MAX_DEPTH: usize = 16;

/// Repositories that one address may name in all.
const MAX_MEMBERS: usize = 256;

/// What asks for the address of a configured repository: `None` where there is none of that name.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Result<Option<String>, String>;

/// Names that may stand in the place of addresses, and how far we are in following them.
pub(super) struct Names<'a> {
    lookup: Lookup<'a>,
    /// The members that led here, outermost first, and whether each is a name.
    way: RefCell<Vec<(String, bool)>>,
    members: Cell<usize>,
}

impl<'a> Names<'a> {
    pub(super) fn new(lookup: Lookup<'a>) -> Self {
        Self {
            lookup,
            way: RefCell::default(),
            members: Cell::new(0),
        }
    }

    /// The location of the member `text`, a name or an address.
    fn member(&self, text: &str) -> Result<Location, String> {
        self.members.set(self.members.get() + 1);
        if self.members.get() > MAX_MEMBERS {
            return Err(format!("it names more than {MAX_MEMBERS} repositories"));
        }
        let address = (self.lookup)(text)?;
        self.enter(text, address.is_some())?;
        let location = parse::parse(address.as_deref().unwrap_or(text), self);
        self.way.borrow_mut().pop();
        location
    }

    fn enter(&self, text: &str, is_name: bool) -> Result<(), String> {
        let mut way = self.way.borrow_mut();
        if way.len() >= MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} deep"));
        }
        let member = (text.to_owned(), is_name);
        if is_name && way.contains(&member) {
            let names = way.iter().filter(|(_, is_name)| *is_name);
            let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
            return Err(format!("it leads to itself: {}, {text}", names.join(", ")));
        }
        way.push(member);
        Ok(())
    }
}

/// Several locations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    primary: Box<Location>,
    secondaries: Vec<Location>,
    include_secondary_tags: bool,
}

/// Whether `scheme` is one of ours.
pub(super) fn is_scheme(scheme: &str) -> bool {
    matches!(scheme, "proxy" | "fallback")
}

/// Parses what follows the colon of a proxy or a fallback.
pub(super) fn parse(rest: &str, names: &Names<'_>) -> Result<Location, String> {
    let Some(query) = rest.trim_start_matches('/').strip_prefix('?') else {
        return Err(NEEDS.to_owned());
    };
    let mut primary = None;
    let mut secondaries: Vec<(u32, String)> = Vec::new();
    let mut include_secondary_tags = true;
    let mut others = Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "primary" if primary.is_some() => return Err("it has two primaries".to_owned()),
            "primary" => primary = Some(value.into_owned()),
            "include_secondary_tags" => {
                include_secondary_tags = parse::parse_bool(&name, &value)?;
            }
            _ => match secondary_position(&name, secondaries.len())? {
                Some(position) => secondaries.push((position, value.into_owned())),
                None => {
                    others.append_pair(&name, &value);
                }
            },
        }
    }
    let primary = primary.filter(|primary| !primary.is_empty()).ok_or(NEEDS)?;
    let place = Place {
        primary: Box::new(named("primary", &primary, names)?),
        secondaries: in_order(secondaries)?
            .iter()
            .map(|text| named("secondary", text, names))
            .collect::<Result<_, _>>()?,
        include_secondary_tags,
    };
    let location = Location::at(AnyPlace::Chain(place));
    let location = parse::with_parameters(location, &others.finish())?;
    if location.create {
        return Err("create belongs to one of its members".to_owned());
    }
    Ok(location)
}

const NEEDS: &str = "it needs a primary: proxy:?primary=A&secondary[0]=B";

fn named(role: &str, text: &str, names: &Names<'_>) -> Result<Location, String> {
    let location = names.member(text);
    location.map_err(|reason| format!("its {role} '{}': {reason}", parse::shown(text)))
}

/// The `n` of `secondary[n]`; that of `secondary[]` and `secondary` is the `next`.
fn secondary_position(name: &str, next: usize) -> Result<Option<u32>, String> {
    let Some(index) = name.strip_prefix("secondary") else {
        return Ok(None);
    };
    let next = u32::try_from(next).unwrap_or(u32::MAX);
    if matches!(index, "" | "[]") {
        return Ok(Some(next));
    }
    let number = index.strip_prefix('[').and_then(|i| i.strip_suffix(']'));
    let number = number.and_then(|number| number.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| format!("'{name}' is not of the form secondary[0]"))
}

fn in_order(mut secondaries: Vec<(u32, String)>) -> Result<Vec<String>, String> {
    secondaries.sort_by_key(|(position, _)| *position);
    if let Some(pair) = secondaries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("it has two secondary[{}]", pair[0].0));
    }
    Ok(secondaries.into_iter().map(|(_, text)| text).collect())
}

impl Place {
    /// The addresses of all, for people.
    pub(super) fn shown(&self) -> String {
        let members = std::iter::once(&*self.primary).chain(&self.secondaries);
        let members: Vec<String> = members.map(Location::to_string).collect();
        members.join(", then ")
    }

    /// Opens the members. What `location` says of tags holds for those that say nothing.
    ///
    /// A secondary that cannot be opened is left out, which is said: a disk that is not there
    /// must not keep the others from being read. The primary must be there.
    pub(super) async fn open(
        &self,
        location: &Location,
        options: &OpenOptions,
    ) -> Result<Arc<dyn Repository>> {
        let member = |member: &Location| {
            let own = member.tag_namespace.clone();
            let namespace = own.or_else(|| location.tag_namespace.clone());
            member.clone().with_tag_namespace(namespace)
        };
        let primary = Box::pin(open(&member(&self.primary), options)).await?;
        let mut secondaries = Vec::with_capacity(self.secondaries.len());
        for secondary in &self.secondaries {
            match Box::pin(open(&member(secondary), options)).await {
                Ok(repository) => secondaries.push(repository),
                Err(error) => tracing::warn!("going on without {secondary}: {error}"),
            }
        }
        let chain = ChainOptions {
            include_secondary_tags: self.include_secondary_tags,
            ..ChainOptions::default()
        };
        Ok(Arc::new(Chain::new(primary, secondaries, chain)))
    }
}
