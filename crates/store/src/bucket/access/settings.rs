//! What a client is told, put together of what several sources say: pure.
//!
//! Settings are known by the client's own names. Of most of them whoever counts most says the value.
//! Credentials belong together: they come from one source, the first one that gives any, and what is
//! missing there is not taken from another. So a key never signs for an account it is not of, and a
//! token never goes with a key it was not issued with.

use std::collections::BTreeMap;

use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;

use super::Kind;
use crate::bucket::secret::Secret;

/// What a client is told, by its own names.
pub(super) type Settings = BTreeMap<String, Secret>;

/// Who says something.
#[derive(Debug)]
pub(super) struct Source {
    /// As messages call it: `the environment`.
    name: &'static str,
    /// By the client's name: the source's own, and the value.
    given: BTreeMap<String, (String, Secret)>,
}

/// Whoever wrote the address, or the configuration of the remote.
pub(super) const ADDRESS: &str = "the address";
/// The variables.
pub(super) const ENVIRONMENT: &str = "the environment";
/// A profile of the AWS tools.
pub(super) const PROFILE: &str = "the profile";

const ACCOUNT: &str = "azure_storage_account_name";
const ACCOUNT_KEY: &str = "azure_storage_account_key";
const SAS: &str = "azure_storage_sas_key";
const KEY_ID: &str = "aws_access_key_id";
const SECRET_KEY: &str = "aws_secret_access_key";
const SESSION: &str = "aws_session_token";

/// What belongs together, by the client's names.
fn credentials(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::S3 => &[KEY_ID, SECRET_KEY, SESSION, "aws_skip_signature"],
        Kind::Google => &[
            "google_service_account",
            "google_service_account_key",
            "google_application_credentials",
            "google_bearer_token",
            "google_skip_signature",
        ],
        Kind::Azure => &[
            ACCOUNT_KEY,
            SAS,
            "azure_storage_token",
            "azure_storage_client_id",
            "azure_storage_client_secret",
            "azure_storage_tenant_id",
            "azure_federated_token_file",
            "azure_use_azure_cli",
            "azure_msi_endpoint",
            "azure_object_id",
            "azure_msi_resource_id",
            "azure_credential_type",
            "azure_skip_signature",
        ],
    }
}

/// The client's name for what a source calls `name`; `None` where it has none, or is not to be told:
/// where the bucket is, we say.
fn canonical(kind: Kind, name: &str) -> Option<String> {
    const LEFT_OUT: [&str; 5] = [
        "aws_bucket",
        "google_bucket",
        "azure_container_name",
        "azure_storage_use_emulator",
        "azure_use_fabric_endpoint",
    ];
    // As Azure's own command line has them.
    let name = match name {
        "azure_storage_account" => ACCOUNT,
        "azure_storage_key" => ACCOUNT_KEY,
        name => name,
    };
    let known = match kind {
        Kind::S3 => name
            .parse()
            .ok()
            .map(|k: AmazonS3ConfigKey| k.as_ref().to_owned()),
        Kind::Google => name
            .parse()
            .ok()
            .map(|k: GoogleConfigKey| k.as_ref().to_owned()),
        Kind::Azure => name
            .parse()
            .ok()
            .map(|k: AzureConfigKey| k.as_ref().to_owned()),
    };
    known.filter(|known| !LEFT_OUT.contains(&known.as_str()))
}

impl Source {
    /// Says of each setting the name by which the client may know it, its own name for it, and the
    /// value.
    pub(super) fn new<'a>(
        name: &'static str,
        kind: Kind,
        settings: impl IntoIterator<Item = (String, String, &'a str)>,
    ) -> Self {
        let mut given = BTreeMap::new();
        for (client, own, value) in settings {
            if let Some(client) = canonical(kind, &client) {
                given.entry(client).or_insert((own, value.into()));
            }
        }
        Self { name, given }
    }

    /// Leaves its credentials out.
    pub(super) fn without_credentials(mut self, kind: Kind) -> Self {
        self.given
            .retain(|name, _| !credentials(kind).contains(&name.as_str()));
        self
    }

    fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    fn own<'a>(&'a self, name: &'a str) -> &'a str {
        self.given.get(name).map_or(name, |(own, _)| own)
    }

    /// What it would call a setting that it does not give.
    fn called(&self, name: &str) -> String {
        let kinds = [Kind::S3, Kind::Google, Kind::Azure];
        let mut parameters = kinds.iter().flat_map(|kind| kind.parameters());
        match self.name {
            ADDRESS => parameters
                .find(|(_, client)| *client == name)
                .map_or(name, |(own, _)| own)
                .to_owned(),
            ENVIRONMENT => name.to_ascii_uppercase(),
            _ => name.to_owned(),
        }
    }

    fn gives_credentials(&self, kind: Kind) -> bool {
        self.given.iter().any(|(name, (_, value))| {
            // Not to be anonymous is nobody's key.
            let is_off = name.ends_with("_skip_signature") && value.reveal() == "false";
            credentials(kind).contains(&name.as_str()) && !is_off
        })
    }
}

/// Puts together what `sources` say; whoever comes first counts most.
///
/// # Errors
/// What is missing or does not fit together, in words without any value that is secret.
pub(super) fn merge(kind: Kind, sources: &[Source]) -> Result<Settings, String> {
    let mut settings = Settings::new();
    let mut chosen = None;
    for source in sources {
        for (name, (_, value)) in &source.given {
            let belongs = credentials(kind).contains(&name.as_str());
            if !belongs || chosen.is_none() {
                settings
                    .entry(name.clone())
                    .or_insert_with(|| value.clone());
            }
        }
        chosen = chosen.or(Some(source).filter(|source| source.gives_credentials(kind)));
    }
    let Some(source) = chosen else {
        return Ok(settings);
    };
    match kind {
        Kind::S3 => check_keys(source)?,
        Kind::Google => check_one(
            source,
            &["google_service_account", "google_service_account_key"],
        )?,
        Kind::Azure => check_account(source, &settings)?,
    }
    Ok(settings)
}

/// An access key has a secret, and a session token has both.
fn check_keys(source: &Source) -> Result<(), String> {
    let all = [KEY_ID, SECRET_KEY, SESSION];
    let Some(given) = all.into_iter().find(|name| source.has(name)) else {
        return Ok(());
    };
    match [KEY_ID, SECRET_KEY]
        .into_iter()
        .find(|name| !source.has(name))
    {
        None => Ok(()),
        Some(missing) => Err(format!(
            "{} gives {} without {}, and credentials of two places are not mixed: give all of them \
             in one place",
            source.name,
            source.own(given),
            source.called(missing),
        )),
    }
}

fn check_one(source: &Source, ways: &[&str]) -> Result<(), String> {
    let given: Vec<&str> = ways
        .iter()
        .filter(|way| source.has(way))
        .map(|way| source.own(way))
        .collect();
    match given.len() {
        0 | 1 => Ok(()),
        _ => Err(format!(
            "{} gives {}: give one",
            source.name,
            given.join(" and ")
        )),
    }
}

/// A key and a SAS token are an account's: whoever gives one says whose it is.
fn check_account(source: &Source, settings: &Settings) -> Result<(), String> {
    // In the environment the one may be for this program and the other for another.
    if source.name == ADDRESS {
        check_one(source, &[ACCOUNT_KEY, SAS])?;
    }
    let Some(given) = [ACCOUNT_KEY, SAS].into_iter().find(|name| source.has(name)) else {
        return Ok(());
    };
    let given = source.own(given);
    let account = settings.get(ACCOUNT).map(Secret::reveal);
    let own = source.given.get(ACCOUNT).map(|(_, value)| value.reveal());
    match (own, account) {
        (Some(own), Some(account)) if own == account => Ok(()),
        (Some(own), Some(account)) => Err(format!(
            "{} gives {given} of the account '{own}', and the account is '{account}': give the account \
             and its key in one place",
            source.name
        )),
        _ => Err(format!(
            "{} gives {given} without {}, and credentials of two places are not mixed: give the \
             account and its key in one place",
            source.name,
            source.called(ACCOUNT),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Given<'a> = &'a [(&'a str, &'a str)];

    fn source(name: &'static str, kind: Kind, given: &[(&str, &str)]) -> Source {
        let given = given.iter().map(|(own, value)| {
            let parameters = kind.parameters().iter();
            let client = parameters.clone().find(|(parameter, _)| parameter == own);
            let client = client.map_or_else(|| own.to_ascii_lowercase(), |(_, c)| (*c).to_owned());
            (client, (*own).to_owned(), *value)
        });
        Source::new(name, kind, given)
    }

    fn merged(
        kind: Kind,
        address: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Result<BTreeMap<String, String>, String> {
        let sources = [
            source(ADDRESS, kind, address),
            source(ENVIRONMENT, kind, environment),
        ];
        let plain = |(name, value): (String, Secret)| (name, value.reveal().to_owned());
        Ok(merge(kind, &sources)?.into_iter().map(plain).collect())
    }

    #[test]
    fn credentials_of_two_sources_are_never_mixed() {
        let environment = [
            ("AWS_ACCESS_KEY_ID", "e"),
            ("AWS_SECRET_ACCESS_KEY", "es"),
            ("AWS_SESSION_TOKEN", "et"),
            ("AWS_REGION", "here"),
        ];
        let address = [("access_key_id", "a"), ("secret_access_key", "as")];
        let all = merged(Kind::S3, &address, &environment).unwrap();
        assert_eq!(
            (all[KEY_ID].as_str(), all[SECRET_KEY].as_str()),
            ("a", "as")
        );
        assert!(!all.contains_key(SESSION), "{all:?}");
        assert_eq!(all["aws_region"], "here");

        let google = [
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "{}"),
            ("GOOGLE_BEARER_TOKEN", "t"),
            ("GOOGLE_BASE_URL", "http://there"),
        ];
        let all = merged(Kind::Google, &[("service_account", "/f")], &google).unwrap();
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        assert_eq!(names, ["google_base_url", "google_service_account"]);

        let azure = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "b"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "bk"),
            ("AZURE_STORAGE_TOKEN", "t"),
        ];
        let address = [("account", "a"), ("sas_token", "s=1")];
        let all = merged(Kind::Azure, &address, &azure).unwrap();
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        assert_eq!(names, [ACCOUNT, SAS]);
        assert_eq!(all[ACCOUNT], "a");

        for kind in [Kind::S3, Kind::Google, Kind::Azure] {
            let all = merged(
                kind,
                &[("anonymous", "true")],
                &[&environment[..], &google, &azure].concat(),
            );
            let all = all.unwrap();
            let keys = credentials(kind)
                .iter()
                .filter(|name| all.contains_key(**name));
            assert_eq!(keys.count(), 1, "{all:?}");
        }
    }

    #[test]
    fn what_is_missing_in_one_source_is_not_taken_from_another() {
        let keys = [
            ("AWS_ACCESS_KEY_ID", "e"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
        ];
        let azure = |account| {
            [
                ("AZURE_STORAGE_ACCOUNT", account),
                ("AZURE_STORAGE_KEY", "hush"),
            ]
        };
        let table: [(Kind, Given<'_>, Given<'_>, &str); 8] = [
            (
                Kind::S3,
                &[("access_key_id", "a")],
                &keys,
                "the address gives access_key_id without secret_access_key",
            ),
            (
                Kind::S3,
                &[("secret_access_key", "hush")],
                &keys,
                "gives secret_access_key without access_key_id",
            ),
            (
                Kind::S3,
                &[],
                &[("AWS_SESSION_TOKEN", "hush")],
                "AWS_SESSION_TOKEN without AWS_ACCESS_KEY_ID",
            ),
            (
                Kind::Google,
                &[],
                &[
                    ("GOOGLE_SERVICE_ACCOUNT", "/f"),
                    ("GOOGLE_SERVICE_ACCOUNT_KEY", "hush"),
                ],
                "give one",
            ),
            (
                Kind::Azure,
                &[("account", "a")],
                &azure("b"),
                "AZURE_STORAGE_KEY of the account 'b', and the account is 'a'",
            ),
            (
                Kind::Azure,
                &[("account", "a")],
                &azure("b")[1..],
                "AZURE_STORAGE_KEY without AZURE_STORAGE_ACCOUNT_NAME",
            ),
            (
                Kind::Azure,
                &[("access_key", "hush")],
                &azure("b"),
                "the address gives access_key without account",
            ),
            (
                Kind::Azure,
                &[
                    ("account", "a"),
                    ("access_key", "hush"),
                    ("sas_token", "hush"),
                ],
                &[],
                "access_key and sas_token: give one",
            ),
        ];
        for (kind, address, environment, words) in table {
            let said = merged(kind, address, environment).unwrap_err();
            assert!(said.contains(words) && !said.contains("hush"), "{said}");
        }
        let all = merged(Kind::Azure, &[("account", "a")], &azure("a")).unwrap();
        assert_eq!(all[ACCOUNT_KEY], "hush");
    }

    #[test]
    fn where_a_bucket_is_no_variable_says_behind_our_back() {
        let variables = [
            ("AZURE_STORAGE_USE_EMULATOR", "true"),
            ("AZURE_CONTAINER_NAME", "x"),
            ("AZURE_ENDPOINT", "http://there"),
        ];
        let all = merged(Kind::Azure, &[], &variables).unwrap();
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        assert_eq!(names, ["azure_storage_endpoint"]);
    }
}
