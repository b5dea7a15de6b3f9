//! Whose object store a bucket is in, and how clients are told of it.

use super::BucketServer;
use super::google::Google;
use crate::azurite::{AZURITE, Azurite};
use crate::need::Need;

/// An object store as one of the three sells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon's protocol: `s3s-fs`.
    S3,
    /// Google's XML protocol, which is Amazon's but for a few headers and the credentials: `s3s-fs`
    /// behind a layer of ours for those.
    Google,
    /// Azure's protocol: Azurite, which is Microsoft's own.
    Azure,
}

impl Cloud {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    /// What its server needs of the machine.
    pub fn needs(self) -> &'static [Need] {
        match self {
            Self::S3 => &[],
            Self::Google => &[Need::Program("openssl")],
            Self::Azure => &[Need::Program(AZURITE)],
        }
    }
}

impl BucketServer {
    /// The address of the repository at `prefix`, without credentials.
    pub fn address_of(&self, prefix: &str) -> String {
        let scheme = match self.cloud() {
            Cloud::S3 => "s3",
            Cloud::Google => "gs",
            Cloud::Azure => "az",
        };
        format!("{scheme}://{}/{prefix}", Self::BUCKET)
    }

    /// How it is reached and with which credentials: what an address calls it, the variable, and the
    /// value.
    fn access(&self) -> Vec<(&'static str, &'static str, String)> {
        let endpoint = self.endpoint();
        match self.cloud() {
            Cloud::S3 => vec![
                ("endpoint", "AWS_ENDPOINT_URL", endpoint),
                ("region", "AWS_REGION", Self::REGION.to_owned()),
                (
                    "access_key_id",
                    "AWS_ACCESS_KEY_ID",
                    Self::ACCESS_KEY.to_owned(),
                ),
                (
                    "secret_access_key",
                    "AWS_SECRET_ACCESS_KEY",
                    Self::SECRET_KEY.to_owned(),
                ),
            ],
            Cloud::Google => {
                let key = self.google().key_file().display().to_string();
                vec![
                    ("endpoint", "GOOGLE_BASE_URL", endpoint),
                    ("service_account", "GOOGLE_SERVICE_ACCOUNT", key),
                ]
            }
            Cloud::Azure => vec![
                ("endpoint", "AZURE_STORAGE_ENDPOINT", endpoint),
                (
                    "account",
                    "AZURE_STORAGE_ACCOUNT_NAME",
                    Azurite::ACCOUNT.to_owned(),
                ),
                ("access_key", "AZURE_STORAGE_ACCOUNT_KEY", Azurite::key()),
            ],
        }
    }

    /// What a client finds in its environment.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let access = self.access().into_iter();
        access
            .map(|(_, variable, value)| (variable, value))
            .collect()
    }

    /// The variable of the key, with one that is not the right one.
    pub fn another_key(&self) -> (&'static str, String) {
        match self.cloud() {
            Cloud::S3 => ("AWS_SECRET_ACCESS_KEY", "not-the-secret".to_owned()),
            Cloud::Google => {
                let file = self.google().another_key_file();
                ("GOOGLE_SERVICE_ACCOUNT", file.display().to_string())
            }
            Cloud::Azure => {
                let key = Azurite::key().replacen(|letter: char| letter.is_ascii_digit(), "A", 3);
                ("AZURE_STORAGE_ACCOUNT_KEY", key)
            }
        }
    }

    /// The same as the query of an address.
    pub fn parameters(&self) -> String {
        let access = self.access();
        let access = access.iter().map(|(name, _, value)| {
            let value = value
                .replace('%', "%25")
                .replace('+', "%2B")
                .replace('&', "%26");
            format!("{name}={value}")
        });
        access.collect::<Vec<_>>().join("&")
    }

    /// A piece of each secret that clients have or make: by that it is known wherever it is.
    pub fn secrets(&self) -> Vec<String> {
        match self.cloud() {
            // A plus sign may be written in three ways.
            Cloud::S3 => vec![
                Self::SECRET_KEY
                    .split('+')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            ],
            Cloud::Google => {
                let signed = self.requests();
                let signed = signed
                    .iter()
                    .filter_map(|request| request.header("authorization"));
                let tokens = signed.filter_map(|value| value.strip_prefix("Bearer "));
                let mut secrets: Vec<String> = tokens.map(str::to_owned).collect();
                secrets.dedup();
                secrets.extend(self.google().pieces_of_the_key());
                secrets
            }
            Cloud::Azure => {
                let signatures = [Azurite::key(), Azurite::signature(Azurite::LATER)];
                // Of what is escaped in an address the rest is enough.
                let piece = |text: &String| {
                    let pieces = text.split(['+', '/', '=']);
                    pieces
                        .max_by_key(|piece| piece.len())
                        .unwrap_or_default()
                        .to_owned()
                };
                signatures.iter().map(piece).collect()
            }
        }
    }

    /// A token that lets its bearer do everything; where it `has_ended`, it did so until long ago.
    ///
    /// # Panics
    /// The server is not Azure's.
    pub fn sas_token(&self, has_ended: bool) -> String {
        assert_eq!(self.cloud(), Cloud::Azure, "only Azure has them");
        Azurite::token(if has_ended {
            Azurite::LONG_AGO
        } else {
            Azurite::LATER
        })
    }

    fn google(&self) -> &Google {
        self.shared.google.as_ref().expect("it is Google's")
    }
}
