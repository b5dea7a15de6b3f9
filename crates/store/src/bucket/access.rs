//! From an address and the user's surroundings to a bucket that can be asked.
//!
//! What the address says counts most, then the environment's variables, then a profile of the AWS
//! tools ([`settings`]); where none of them gives keys, the object store's client gets them from a web
//! identity or from the machine it runs on, and gets new ones before they expire. Everything is decided
//! here, once, when the repository is opened; only the files of profiles and keys are read.

mod address;
mod opening;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use self::address::{BucketAddress, Kind};
use super::secret::Secret;

/// The user's environment, as far as access to buckets depends on it. Its values are never shown.
#[derive(Clone, Default, Debug)]
pub struct BucketEnvironment(Arc<BTreeMap<String, Secret>>);

impl BucketEnvironment {
    /// Of environment variables those that matter here.
    pub fn new<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let wanted = |name: &str| {
            name == "HOME"
                || ["AWS_", "GOOGLE_", "AZURE_"]
                    .iter()
                    .any(|p| name.starts_with(p))
        };
        let variables = variables
            .into_iter()
            .filter(|(name, value)| wanted(name) && !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.into()));
        Self(Arc::new(variables.collect()))
    }

    /// What the variable says, where there is one.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::reveal)
    }

    /// Those that begin with `prefix`, with what they say.
    fn starting(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.reveal()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::opening::Opening;
    use super::*;
    use crate::error::Result;

    fn settings(
        parameters: &[(&str, &str)],
        variables: &[(&str, &str)],
    ) -> Result<BTreeMap<String, String>> {
        let mut address = BucketAddress::new(Kind::S3, "b", "").unwrap();
        for (name, value) in parameters {
            assert!(address.set(name, value).unwrap());
        }
        let environment = BucketEnvironment::new(variables.iter().copied());
        let opening = Opening::new(&address, Duration::from_secs(1), &environment);
        let settings = opening.settings()?;
        let plain = |(name, value): (String, Secret)| (name, value.reveal().to_owned());
        Ok(settings.into_iter().map(plain).collect())
    }

    #[test]
    fn the_address_counts_most_then_the_environment_then_a_profile() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let write = |name: &str, text| {
            std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        };
        write(
            "credentials",
            "[default]\naws_access_key_id=d\naws_secret_access_key=ds\naws_session_token=dt\n\
             [site]\naws_access_key_id=s\naws_secret_access_key=ss\n",
        );
        write(
            "config",
            "[profile site]\nregion=there\nendpoint_url=http://site\n",
        );
        let home = ("HOME", home.path().to_str().unwrap());
        let key = |all: &BTreeMap<String, String>, name: &str| all.get(name).cloned();

        let all = settings(&[], &[home]).unwrap();
        assert_eq!(key(&all, "aws_access_key_id").unwrap(), "d");
        assert_eq!(key(&all, "aws_session_token").unwrap(), "dt");

        let keys = [("AWS_ACCESS_KEY_ID", "e"), ("AWS_SECRET_ACCESS_KEY", "es")];
        let all = settings(&[], &[home, keys[0], keys[1]]).unwrap();
        assert_eq!(key(&all, "aws_access_key_id").unwrap(), "e");
        assert_eq!(key(&all, "aws_session_token"), None, "keys are not mixed");

        let all = settings(&[("profile", "site")], &[home, keys[0], keys[1]]).unwrap();
        assert_eq!(key(&all, "aws_secret_access_key").unwrap(), "ss");
        assert_eq!(key(&all, "aws_default_region").unwrap(), "there");
        let here = [("AWS_PROFILE", "site"), ("AWS_DEFAULT_REGION", "here")];
        let all = settings(&[], &[home, here[0], here[1]]).unwrap();
        assert_eq!(key(&all, "aws_default_region").unwrap(), "here");
        assert_eq!(key(&all, "aws_access_key_id").unwrap(), "s");

        let given = [("access_key_id", "a"), ("secret_access_key", "as")];
        let all = settings(&given, &[home, keys[0], keys[1], here[0]]).unwrap();
        assert_eq!(key(&all, "aws_access_key_id").unwrap(), "a");

        let error = settings(&[("profile", "nobody")], &[home]).unwrap_err();
        assert!(error.to_string().contains("no profile 'nobody'"), "{error}");
    }

    #[test]
    fn credentials_that_cannot_be_any_are_told_and_not_shown() {
        let table = [
            (
                Kind::Azure,
                "account=a&access_key=hush!",
                "",
                "access key cannot be used",
            ),
            (
                Kind::Azure,
                "account=a&sas_token=hush",
                "",
                "SAS token cannot be used",
            ),
            (
                Kind::Azure,
                "sas_token=hush",
                "",
                "sas_token without account",
            ),
            (Kind::Azure, "anonymous=true", "", "it needs an account"),
            (
                Kind::Azure,
                "account=a/b",
                "",
                "'a/b' is not the name of an account",
            ),
            (
                Kind::Google,
                "service_account=/no/file",
                "",
                "/no/file cannot be read",
            ),
            (
                Kind::Google,
                "",
                "GOOGLE_SERVICE_ACCOUNT_KEY=hush",
                "not the key of a service account",
            ),
            (
                Kind::S3,
                "",
                "AWS_ENDPOINT_URL=hush",
                "its endpoint is not a URL",
            ),
        ];
        for (kind, parameters, variables, words) in table {
            let pairs = |text: &'static str| {
                let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
                pairs.collect::<Vec<_>>()
            };
            let mut address = BucketAddress::new(kind, "b", "").unwrap();
            for (name, value) in pairs(parameters) {
                assert!(address.set(name, value).unwrap());
            }
            let environment = BucketEnvironment::new(pairs(variables));
            let opened = address.open(None, Duration::from_secs(1), &environment);
            let said = opened.unwrap_err().to_string();
            assert!(said.contains(words) && !said.contains("hush"), "{said}");
        }
    }
}
