//! Who may read our secrets: the settings file where it has some, and the files that it names for them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Subject::Settings;
use super::{Finding, unreadable};
use crate::config::lists::Source;
use crate::config::{Config, Secret};

/// Nobody may do more with a file that has a secret in it.
const WIDEST: u32 = 0o640;

/// Whether others may read the secrets of the settings in `file`, or change the settings.
#[must_use]
pub fn permissions(config: &Config, file: &Path) -> Vec<Finding> {
    const CHECK: &str = "permissions";
    let mut findings = vec![];
    let (inline, files) = secrets(config);
    match std::fs::metadata(file) {
        Ok(about) => {
            let what =
                if inline { "which has a secret in it" } else { "the settings of programs that root runs" };
            let wide = if inline { too_wide(&about) } else { about.mode() & 0o022 != 0 };
            let path = file.display();
            if about.uid() != 0 {
                let text = format!("{path}, {what}, belongs to user {}, who may change it.", about.uid());
                findings.push(Finding::needs(Settings, CHECK, text, format!("chown root {path}")));
            }
            if wide {
                let text = format!("{path}, {what}, has the mode {:04o}.", about.mode() & 0o7777);
                let remedy = if inline { format!("chmod 0640 {path}") } else { format!("chmod go-w {path}") };
                findings.push(Finding::needs(Settings, CHECK, text, remedy));
            }
        }
        // Defaults have no secrets.
        Err(error) if super::is_absent(&error) => {}
        Err(error) => findings.push(unreadable(Settings, CHECK, file, &error)),
    }
    let count = files.len();
    for path in files {
        let shown = path.display();
        match std::fs::metadata(&path) {
            Ok(about) if too_wide(&about) => {
                let text = format!("{shown} is a secret, and has the mode {:04o}.", about.mode() & 0o7777);
                findings.push(Finding::needs(Settings, CHECK, text, format!("chmod 0640 {shown}")));
            }
            Ok(_) => {}
            Err(error) if super::is_absent(&error) => findings.push(Finding::needs(
                Settings,
                CHECK,
                format!("{shown}, which the settings name as a secret, is not there."),
                format!("install -m 0640 /dev/null {shown}, and write the secret into it."),
            )),
            Err(error) => findings.push(unreadable(Settings, CHECK, &path, &error)),
        }
    }
    if findings.is_empty() {
        let what = match (inline, count) {
            (false, 0) => "the settings have no secrets",
            _ => "nobody else may read the secrets",
        };
        findings.push(Finding::fine(Settings, CHECK, what));
    }
    findings
}

fn too_wide(about: &Metadata) -> bool {
    about.mode() & 0o777 & !WIDEST != 0
}

/// Whether the settings themselves have some, and the files of the others.
fn secrets(config: &Config) -> (bool, Vec<PathBuf>) {
    let (mut inline, mut files) = (false, vec![]);
    let mut take = |secret: &Secret, whole: bool| match secret {
        Secret::Inline(text) => inline |= whole || has_password(text),
        Secret::File(path) => {
            if !files.contains(path) {
                files.push(path.clone());
            }
        }
    };
    let registrations = &config.registrations;
    for target in [&registrations.postgres, &config.fusionpbx.postgres].into_iter().flatten() {
        take(target, false);
    }
    if let Some(password) = &registrations.event_socket.password {
        take(password, true);
    }
    for list in config.lists.values() {
        match &list.source {
            Source::Web { urls, .. } => urls.iter().for_each(|url| take(url, false)),
            Source::Apiban { url, key } => {
                take(url, false);
                take(key, true);
            }
            Source::File(_) | Source::Entries(_) | Source::Carriers => {}
        }
    }
    (inline, files)
}

/// `password=` of libpq, or `user:password@` of a URL.
fn has_password(text: &str) -> bool {
    let user = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next()?.rsplit_once('@'));
    text.contains("password=") || user.is_some_and(|(user, _)| user.contains(':'))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::checkup::Verdict;

    #[test]
    fn nobody_else_reads_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let (file, secret) = (dir.path().join("settings"), dir.path().join("secret"));
        let check = |settings: &str, modes: (u32, u32)| -> Vec<String> {
            for (path, mode) in [(&file, modes.0), (&secret, modes.1)] {
                std::fs::write(path, settings).unwrap();
                std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
            let found = permissions(&toml::from_str(settings).unwrap(), &file).into_iter();
            found.filter(|found| found.verdict != Verdict::Fine).map(|found| found.remedy).collect()
        };
        let in_file =
            format!("[lists.apiban]\nkind = \"block\"\nformat = \"apiban\"\nkey = {{ file = {secret:?} }}");
        let inline = "[registrations]\npostgres = \"postgres://a:b@c/d\"";
        let (chmod, chmod_secret) =
            (format!("chmod 0640 {}", file.display()), format!("chmod 0640 {}", secret.display()));
        assert_eq!(check("", (0o644, 0o644)), [""; 0]);
        assert_eq!(check("", (0o664, 0o644)), [format!("chmod go-w {}", file.display())]);
        assert_eq!(check(inline, (0o640, 0o644)), [""; 0]);
        assert_eq!(check(inline, (0o644, 0o644)), [chmod]);
        assert_eq!(check(&in_file, (0o644, 0o640)), [""; 0]);
        assert_eq!(check(&in_file, (0o644, 0o600)), [""; 0]);
        assert_eq!(check(&in_file, (0o644, 0o644)), [chmod_secret]);
        let gone = in_file.replace("secret", "gone");
        assert!(check(&gone, (0o644, 0o640))[0].starts_with("install -m 0640 /dev/null"));
        assert!(
            has_password("host=x password=y")
                && !has_password("postgres://ringfence@x/d")
                && !has_password("https://x/?a:b@c")
        );
    }
}
