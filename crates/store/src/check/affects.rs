//! Whom damage affects: the way up from what is damaged to the tags that need it.

use std::collections::{BTreeSet, HashMap, HashSet};

use farseek_object::{Digest, TagSpec};
use futures::stream::{self, StreamExt};

use super::survey::Survey;
use super::{Damage, Problem, Problems, Root, Subject};
use crate::copy::is_damage;
use crate::error::Result;

/// Manifests that are read again at once.
const MANIFESTS: usize = 4;

/// The way up: what refers to something.
#[derive(Debug, Default)]
struct Parents {
    of: HashMap<Digest, Vec<Digest>>,
    /// The numbers of the roots that name something.
    roots: HashMap<Digest, Vec<u32>>,
}

impl Parents {
    fn new(roots: &[Root], stacks: &HashMap<Digest, Vec<Digest>>) -> Self {
        let mut parents = Self::default();
        for (number, root) in roots.iter().enumerate() {
            let named = parents.roots.entry(root.target).or_default();
            named.push(number as u32);
        }
        for (parent, children) in stacks {
            parents.add(*parent, children);
        }
        parents
    }

    fn add(&mut self, parent: Digest, children: &[Digest]) {
        for child in children {
            self.of.entry(*child).or_default().push(parent);
        }
    }

    /// The roots above `digest`, in their order.
    fn above(&self, digest: Digest) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut seen = HashSet::from([digest]);
        let mut pending = vec![digest];
        while let Some(digest) = pending.pop() {
            found.extend(self.roots.get(&digest).into_iter().flatten());
            let parents = self.of.get(&digest).into_iter().flatten();
            pending.extend(parents.filter(|parent| seen.insert(**parent)));
        }
        found
    }
}

/// What is wrong by now, with whom it affects.
pub(super) async fn problems(survey: &Survey, roots: &[Root]) -> Result<Problems> {
    let damaged: HashSet<Digest> = survey.damage.keys().filter_map(digest_of).collect();
    if survey.damage.is_empty() {
        return Ok(Problems::new());
    }
    let mut parents = Parents::new(roots, &survey.stacks);
    let manifests = survey.manifests.iter().copied();
    let mut manifests = stream::iter(manifests.filter(|_| !damaged.is_empty()))
        .map(|digest| async move { (digest, survey.repository.get_object(&digest).await) })
        .buffer_unordered(MANIFESTS);
    while let Some((digest, object)) = manifests.next().await {
        match object {
            Ok(object) => {
                let mut children = object.children();
                children.retain(|child| damaged.contains(child));
                parents.add(digest, &children);
            }
            // It was whole when it was read before; who changes it meanwhile is found next time.
            Err(error) if error.is_not_found() || is_damage(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let problem = |subject: &Subject, damage| Problem {
        subject: subject.clone(),
        damage,
        affects: affected(subject, &parents, roots),
        repaired: false,
        unrepaired: None,
    };
    let damage = survey.damage.iter();
    Ok(damage
        .map(|(subject, damage)| (subject.clone(), problem(subject, damage.clone())))
        .collect())
}

/// Takes out what is not there and what nobody needs who would miss it; how much that is.
pub(super) fn set_absent_aside(survey: &mut Survey, problems: &mut Problems) -> u64 {
    let before = problems.len();
    problems.retain(|_, problem| !is_absent(problem));
    survey
        .damage
        .retain(|subject, _| problems.contains_key(subject));
    (before - problems.len()) as u64
}

/// The tags that name what runtimes use (FORMAT.md section 9.1).
const RUNTIMES: &str = "spfs/runtimes/data/";

fn is_absent(problem: &Problem) -> bool {
    problem.damage == Damage::Missing
        && matches!(problem.subject, Subject::Object(_))
        && problem.affects.iter().all(|tag| tag.starts_with(RUNTIMES))
}

fn digest_of(subject: &Subject) -> Option<Digest> {
    match subject {
        Subject::Object(digest) | Subject::Payload(digest) => Some(*digest),
        Subject::Tag(_) => None,
    }
}

fn affected(subject: &Subject, parents: &Parents, roots: &[Root]) -> Vec<String> {
    match subject {
        Subject::Object(digest) | Subject::Payload(digest) => {
            let above = parents.above(*digest).into_iter();
            above
                .map(|number| roots[number as usize].name.clone())
                .collect()
        }
        Subject::Tag(name) => {
            let name = name.clone();
            vec![TagSpec { name, version: 0 }.to_string()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    #[test]
    fn all_ways_up_are_found() {
        let [platform, layer, other, manifest, blob] =
            ["platform", "layer", "other", "manifest", "blob"].map(digest);
        let root = |name: &str, target| Root {
            name: name.to_owned(),
            target,
        };
        let roots = [
            root("old", other),
            root("env", platform),
            root("env~1", layer),
            root("none", digest("elsewhere")),
        ];
        let stacks = HashMap::from([
            (platform, vec![layer, other]),
            (layer, vec![manifest]),
            (other, vec![]),
        ]);
        let mut parents = Parents::new(&roots, &stacks);
        parents.add(manifest, &[blob]);
        let affected = |digest| affected(&Subject::Object(digest), &parents, &roots);
        assert_eq!(affected(blob), ["env", "env~1"]);
        assert_eq!(affected(other), ["old", "env"]);
        assert_eq!(affected(platform), ["env"]);
        assert_eq!(affected(digest("nobody's")), Vec::<String>::new());
        let tag = Subject::Tag("a/b".parse().unwrap());
        assert_eq!(super::affected(&tag, &parents, &roots), ["a/b"]);
    }
}
