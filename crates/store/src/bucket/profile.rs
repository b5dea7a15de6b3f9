//! Profiles of the AWS tools: pure.
//!
//! `~/.aws/credentials` has a section `[name]` a profile, `~/.aws/config` a section `[profile name]`
//! (`[default]` without the word). What both say, the first one says. Deliberately absent: profiles
//! that name another way to get credentials (a program, single sign-on, a role to assume); they are
//! refused by name, for what they ask for is not what is in the file.

use std::collections::BTreeMap;

/// Ways to get credentials that we do not go.
const OTHER_WAYS: [&str; 5] = [
    "credential_process",
    "sso_session",
    "sso_start_url",
    "role_arn",
    "source_profile",
];

/// The profile that counts where none is named.
pub(super) const DEFAULT: &str = "default";

/// The settings of the profile `name`, in the words of the files; `None` where neither file has it.
///
/// # Errors
/// What of it we do not do, in words.
pub(super) fn profile(
    credentials: &str,
    config: &str,
    name: &str,
) -> Result<Option<BTreeMap<String, String>>, String> {
    let in_config = match name {
        DEFAULT => DEFAULT.to_owned(),
        name => format!("profile {name}"),
    };
    let (secrets, settings) = (section(credentials, name), section(config, &in_config));
    if secrets.is_none() && settings.is_none() {
        return Ok(None);
    }
    let mut all = settings.unwrap_or_default();
    all.extend(secrets.unwrap_or_default());
    let other = OTHER_WAYS.iter().find(|way| all.contains_key(**way));
    match other.filter(|_| !all.contains_key("aws_access_key_id")) {
        Some(way) => Err(format!(
            "the profile '{name}' gets its credentials by {way}, which is not supported: put keys \
             into the environment (aws configure export-credentials --format env)"
        )),
        None => Ok(Some(all)),
    }
}

/// What a section says. Names are in lower case; what is indented below a name belongs to it.
fn section(text: &str, wanted: &str) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut is_ours = false;
    for line in text.lines() {
        let is_indented = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split(']').next().unwrap_or_default();
            let name: Vec<&str> = name.split_whitespace().collect();
            is_ours = name.join(" ") == wanted;
            if is_ours {
                found.get_or_insert_default();
            }
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| is_ours && !is_indented) else {
            continue;
        };
        // A comment begins after a space.
        let value = value.split(" #").next().unwrap_or_default();
        let pair = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        found.get_or_insert_default().insert(pair.0, pair.1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "\
# mine
[default]
aws_access_key_id = AKID
AWS_SECRET_ACCESS_KEY=a=b#c # a comment

[ other ]
aws_session_token = t
";
    const CONFIG: &str = "\
[default]
region = eu-west-1
s3 =
    addressing_style = path
[profile other]
region=us-west-2
aws_session_token = no
[profile sso]
sso_session = x
[other]
region = wrong
";

    fn get(name: &str, key: &str) -> Option<String> {
        let found = profile(CREDENTIALS, CONFIG, name).unwrap()?;
        found.get(key).cloned()
    }

    #[test]
    fn both_files_are_read() {
        assert_eq!(get("default", "aws_access_key_id").unwrap(), "AKID");
        assert_eq!(get("default", "aws_secret_access_key").unwrap(), "a=b#c");
        assert_eq!(get("default", "region").unwrap(), "eu-west-1");
        assert_eq!(get("default", "addressing_style"), None);
        assert_eq!(get("other", "aws_session_token").unwrap(), "t");
        assert_eq!(get("other", "region").unwrap(), "us-west-2");
    }

    #[test]
    fn what_is_not_there_or_not_done_is_told() {
        assert_eq!(profile(CREDENTIALS, CONFIG, "nobody"), Ok(None));
        let error = profile(CREDENTIALS, CONFIG, "sso").unwrap_err();
        assert!(
            error.contains("'sso'") && error.contains("sso_session"),
            "{error}"
        );
    }
}
