//! What is said of a configuration file that cannot be parsed: where and what, but never the line
//! itself, which may hold a password.

use config::ConfigError;

/// What is wrong with our own file.
pub(super) fn toml(text: &str, error: &toml::de::Error) -> String {
    // Should a parser ever quote a value over several lines, the first is enough.
    let what = error.message().lines().next().unwrap_or_default();
    match error.span() {
        Some(span) => {
            let (line, column) = position(text, span.start);
            format!("line {line}, column {column}: {what}")
        }
        None => what.to_owned(),
    }
}

/// What is wrong with one of SPFS's files.
pub(super) fn spfs(text: &str, error: &ConfigError) -> String {
    let ConfigError::FileParse { cause, .. } = error else {
        return "it does not hold keys and values".to_owned();
    };
    if let Some(error) = cause.downcast_ref::<toml::de::Error>() {
        return toml(text, error);
    }
    let said = cause.to_string();
    if cause.is::<serde_json::Error>() || is_position_and_rule(&said) {
        return said;
    }
    "it holds something that is no key or no value".to_owned()
}

/// Whether these are a parser's words about the syntax (`1:3 missing key` for INI, `did not find
/// expected key at byte 3 line 1 column 4` for YAML). Others may quote a value.
fn is_position_and_rule(said: &str) -> bool {
    let of_ini = said.split_once(':').is_some_and(|(line, rest)| {
        let column = rest.split(' ').next().unwrap_or_default();
        line.parse::<usize>().is_ok() && column.parse::<usize>().is_ok()
    });
    of_ini || said.contains(" at byte ")
}

/// The line and column of a byte, both counted from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use config::{Config, File, FileFormat};

    use super::*;

    const SECRET: &str = "s3cr3t";

    fn of_spfs(text: &str, format: FileFormat) -> String {
        let builder = Config::builder().add_source(File::from_str(text, format));
        let read = builder
            .build()
            .and_then(Config::try_deserialize::<serde_json::Value>);
        spfs(text, &read.unwrap_err())
    }

    #[test]
    fn our_own_file_is_told_by_line_and_column() {
        let text = "[remote.o]\naddress=http://u:s3cr3t@h\n";
        let said = toml(text, &text.parse::<toml::Table>().unwrap_err());
        assert!(said.starts_with("line 2, column "), "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }

    #[test]
    fn no_format_shows_what_is_in_the_file() {
        let table = [
            ("a=http://u:s3cr3t@h", FileFormat::Toml, "line 1, column "),
            ("{\"a\":s3cr3t}", FileFormat::Json, "line 1 column "),
            ("\"s3cr3t\"", FileFormat::Json, ""),
            ("a: [s3cr3t", FileFormat::Yaml, "line "),
            ("s3cr3t", FileFormat::Yaml, ""),
            ("[s3cr3t]: 1", FileFormat::Yaml, ""),
            ("[a]\n=s3cr3t", FileFormat::Ini, "2:"),
            ("[s3cr3t", FileFormat::Ini, "1:"),
        ];
        for (text, format, place) in table {
            let said = of_spfs(text, format);
            assert!(!said.contains(SECRET), "{text:?}: {said}");
            assert!(said.contains(place), "{text:?}: {said}");
        }
    }

    #[test]
    fn positions_count_from_one() {
        let table = [
            (0, (1, 1)),
            (2, (1, 3)),
            (3, (2, 1)),
            (5, (2, 2)),
            (99, (2, 3)),
        ];
        for (byte, expected) in table {
            assert_eq!(position("ab\nöc", byte), expected, "{byte}");
        }
    }
}
