//! Who may read our secrets, or put others in their place: the settings file where it has some, the files that it names for them, and the
//! directories above.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Subject::Settings;
use super::{Finding, unreadable};
use crate::config::lists::Source;
use crate::config::{Config, Secret};

const CHECK: &str = "permissions";

/// Nobody may do more with a file that has a secret in it.
const WIDEST: u32 = 0o640;

/// Others may make files in a directory with it, but not take away or rename what is not theirs.
const STICKY: u32 = 0o1000;

/// Who may own a secret, and be the group that reads it: root, and whom `ringfence-events` runs as.
#[derive(Clone, Debug)]
pub struct Trusted {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Trusted {
    /// By the text of `/etc/passwd`.
    #[must_use]
    pub fn new(passwd: &str) -> Self {
        let ours = passwd.lines().find(|line| line.starts_with("ringfence:"));
        let ids: Vec<u32> =
            ours.into_iter().flat_map(|line| line.split(':').skip(2).take(2)).flat_map(str::parse).collect();
        let mut trusted = Self { users: vec![0], groups: vec![0] };
        if let [user, group] = ids[..] {
            trusted.users.push(user);
            trusted.groups.push(group);
        }
        trusted
    }

    /// The option of install(1) by which a secret is shared with the tools that have no privileges, where there is their user.
    fn group(&self) -> &'static str {
        if self.groups.len() > 1 { "-g ringfence " } else { "" }
    }
}

/// Whether others may read the secrets of the settings in `file`, or change the settings.
#[must_use]
pub fn permissions(config: &Config, file: &Path, trusted: &Trusted) -> Vec<Finding> {
    let mut findings = vec![];
    let mut dirs = BTreeSet::new();
    let (inline, files) = secrets(config);
    match std::fs::metadata(file) {
        Ok(about) => {
            let what =
                if inline { "which has a secret in it" } else { "the settings of programs that root runs" };
            let path = file.display();
            if about.uid() != 0 {
                let text = format!("{path}, {what}, belongs to user {}, who may change it.", about.uid());
                findings.push(needs(file, text, format!("chown root {path}")));
            }
            findings.extend(if inline {
                readable(file, &about, what, trusted)
            } else {
                (about.mode() & 0o022 != 0).then(|| {
                    let text = format!("{path}, {what}, has the mode {:04o}.", about.mode() & 0o7777);
                    needs(file, text, format!("chmod go-w {path}"))
                })
            });
            dirs.extend(above(file));
        }
        // Defaults have no secrets.
        Err(error) if super::is_absent(&error) => {}
        Err(error) => findings.push(unreadable(Settings, CHECK, file, &error)),
    }
    let count = files.len();
    for path in &files {
        let shown = path.display();
        match std::fs::metadata(path) {
            Ok(about) => {
                if !trusted.users.contains(&about.uid()) {
                    let text = format!(
                        "{shown} is a secret, and belongs to user {}, who may change it.",
                        about.uid()
                    );
                    findings.push(needs(path, text, format!("chown root {shown}")));
                }
                findings.extend(readable(path, &about, "a secret", trusted));
                dirs.extend(above(path));
            }
            Err(error) if super::is_absent(&error) => findings.push(needs(
                path,
                format!("{shown}, which the settings name as a secret, is not there."),
                format!(
                    "install -m 0640 {}/dev/null {shown}, and write the secret into it.",
                    trusted.group()
                ),
            )),
            Err(error) => findings.push(unreadable(Settings, CHECK, path, &error)),
        }
    }
    findings.extend(dirs.iter().filter_map(|dir| replaceable(dir, trusted)));
    if findings.is_empty() {
        let what = match (inline, count) {
            (false, 0) => "the settings have no secrets, and nobody else may change them",
            _ => "nobody else may read the secrets, or change the settings",
        };
        findings.push(Finding::fine(Settings, CHECK, what));
    }
    findings
}

fn needs(path: &Path, what: String, remedy: String) -> Finding {
    Finding::needs(Settings, CHECK, what, remedy).about(path.display().to_string())
}

/// By its mode, or by its group.
fn readable(path: &Path, about: &Metadata, what: &str, trusted: &Trusted) -> Option<Finding> {
    let (shown, mode) = (path.display(), about.mode() & 0o7777);
    if mode & 0o777 & !WIDEST != 0 {
        let text = format!("{shown}, {what}, has the mode {mode:04o}.");
        return Some(needs(path, text, format!("chmod 0640 {shown}")));
    }
    (mode & 0o040 != 0 && !trusted.groups.contains(&about.gid())).then(|| {
        let text = format!("{shown}, {what}, can be read by group {}.", about.gid());
        needs(
            path,
            text,
            format!("chgrp root {shown}, or, where ringfence-events reads it: chgrp ringfence {shown}"),
        )
    })
}

/// The directories above a file, wherever links lead; also those of the links themselves.
fn above(file: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let real = file.canonicalize().unwrap_or_else(|_| absolute.clone());
    let dirs = |path: &Path| path.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>();
    [dirs(&absolute), dirs(&real)].concat()
}

/// Whether somebody else could put another file in the place of one below.
fn replaceable(dir: &Path, trusted: &Trusted) -> Option<Finding> {
    let about = std::fs::metadata(dir).ok()?;
    let (shown, mode) = (dir.display(), about.mode());
    if !trusted.users.contains(&about.uid()) {
        let text = format!(
            "{shown}, above settings or secrets, belongs to user {}, who may replace them.",
            about.uid()
        );
        return Some(needs(dir, text, format!("chown root {shown}")));
    }
    let by_group = mode & 0o020 != 0 && !trusted.groups.contains(&about.gid());
    let by_all = mode & 0o002 != 0;
    ((by_group || by_all) && mode & STICKY == 0).then(|| {
        let text = format!(
            "{shown}, above settings or secrets, has the mode {:04o} and the group {}: others may replace them.",
            mode & 0o7777,
            about.gid()
        );
        needs(dir, text, format!("chmod go-w {shown}"))
    })
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

/// `password = x` of libpq; of a URL `user:password@`, or `?apikey=x`.
fn has_password(text: &str) -> bool {
    const NAMES: [&str; 6] = ["key", "token", "secret", "pass", "auth", "signature"];
    let named = text.split("password").skip(1).any(|behind| behind.trim_start().starts_with('='));
    let url = text.split_once("://").map(|(_, rest)| rest);
    let user = url.and_then(|rest| rest.split(['/', '?']).next()?.rsplit_once('@'));
    let query = url.and_then(|rest| rest.split_once('?')).map_or("", |(_, query)| query);
    let is_secret = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        let name = name.to_ascii_lowercase();
        !value.is_empty() && NAMES.iter().any(|secret| name.contains(secret))
    };
    named || user.is_some_and(|(user, _)| user.contains(':')) || query.split(['&', '#']).any(is_secret)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;
    use crate::checkup::Verdict;

    const INLINE: &str = "[registrations]\npostgres = \"postgres://a:b@c/d\"";

    fn in_file(secret: &Path) -> String {
        format!("[lists.apiban]\nkind = \"block\"\nformat = \"apiban\"\nkey = {{ file = {secret:?} }}")
    }

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// What should be done.
    fn remedies(settings: &str, file: &Path) -> Vec<String> {
        let trusted = Trusted::new("root:x:0:0::/:/bin/sh\nringfence:x:990:991::/:/bin/sh\n");
        let found = permissions(&toml::from_str(settings).unwrap(), file, &trusted).into_iter();
        found.filter(|found| found.verdict != Verdict::Fine).map(|found| found.remedy).collect()
    }

    #[test]
    fn nobody_else_reads_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let (file, secret) = (dir.path().join("settings"), dir.path().join("secret"));
        let check = |settings: &str, modes: (u32, u32)| -> Vec<String> {
            for (path, mode) in [(&file, modes.0), (&secret, modes.1)] {
                std::fs::write(path, settings).unwrap();
                chmod(path, mode);
            }
            remedies(settings, &file)
        };
        let in_file = in_file(&secret);
        let (chmod, chmod_secret) =
            (format!("chmod 0640 {}", file.display()), format!("chmod 0640 {}", secret.display()));
        assert_eq!(check("", (0o644, 0o644)), [""; 0]);
        assert_eq!(check("", (0o664, 0o644)), [format!("chmod go-w {}", file.display())]);
        assert_eq!(check(INLINE, (0o640, 0o644)), [""; 0]);
        assert_eq!(check(INLINE, (0o644, 0o644)), [chmod]);
        assert_eq!(check(&in_file, (0o644, 0o640)), [""; 0]);
        assert_eq!(check(&in_file, (0o644, 0o600)), [""; 0]);
        assert_eq!(check(&in_file, (0o644, 0o644)), [chmod_secret]);
        let gone = in_file.replace("secret", "gone");
        assert!(check(&gone, (0o644, 0o640))[0].starts_with("install -m 0640 -g ringfence /dev/null"));
        for (text, has) in [
            ("host=x password=y", true),
            ("host = x password = y", true),
            ("host=x passfile=/etc/pass", false),
            ("postgres://ringfence@x/d", false),
            ("postgres://ringfence:x@y/d", true),
            ("postgres://ringfence@x/d?password=y", true),
            ("https://x/?a:b@c", false),
            ("https://x/list?format=csv&apikey=abc", true),
            ("https://x/list?Access_Token=abc", true),
            ("https://x/list?key=", false),
            ("https://x/list?format=csv", false),
        ] {
            assert_eq!(has_password(text), has, "{text}");
        }
    }

    #[test]
    fn nobody_else_owns_a_secret_or_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("etc");
        std::fs::create_dir(&inner).unwrap();
        let (file, secret) = (inner.join("settings"), inner.join("secret"));
        let settings = in_file(&secret);
        for path in [&file, &secret] {
            std::fs::write(path, "").unwrap();
            chmod(path, 0o640);
        }
        let owned = |path: &Path, user: u32, group: u32, expected: &[String]| {
            chown(path, Some(user), Some(group)).unwrap();
            assert_eq!(remedies(&settings, &file), expected, "{} {user}:{group}", path.display());
            chown(path, Some(0), Some(0)).unwrap();
        };
        let (shown, shown_dir) = (secret.display().to_string(), inner.display().to_string());
        owned(&secret, 990, 991, &[]);
        owned(&secret, 0, 991, &[]);
        owned(&secret, 1000, 0, &[format!("chown root {shown}")]);
        owned(
            &secret,
            0,
            1000,
            &[format!("chgrp root {shown}, or, where ringfence-events reads it: chgrp ringfence {shown}")],
        );
        owned(&file, 0, 1000, &[]);
        owned(&file, 990, 0, &[format!("chown root {}", file.display())]);
        owned(&inner, 1000, 0, &[format!("chown root {shown_dir}")]);
        for (mode, group, is_safe) in
            [(0o755, 0, true), (0o775, 0, true), (0o775, 1000, false), (0o757, 0, false), (0o1777, 0, true)]
        {
            chmod(&inner, mode);
            let expected = if is_safe { vec![] } else { vec![format!("chmod go-w {shown_dir}")] };
            owned(&inner, 0, group, &expected);
        }
        // Where a link leads, and where it lies.
        chmod(&inner, 0o777);
        let link = dir.path().join("link");
        symlink(&secret, &link).unwrap();
        let by_link = in_file(&link);
        assert_eq!(remedies(&by_link, Path::new("/nonexistent")), [format!("chmod go-w {shown_dir}")]);
        assert_eq!(Trusted::new("ringfence:x:no:1:").users, [0]);
    }
}
