//! What FreeSWITCH's own configuration says about where its tables are.
//!
//! Reads `vars.xml` (`$${name}`), `autoload_configs/switch.conf.xml` and
//! `autoload_configs/event_socket.conf.xml`. FusionPBX writes `vars.xml` as a fragment without a root
//! element, so no document is asked for, only elements.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::state_file;

/// Where FreeSWITCH's configuration usually is.
pub const USUAL_DIRS: [&str; 4] = [
    "/etc/freeswitch",
    "/usr/local/freeswitch/conf",
    "/usr/local/etc/freeswitch",
    "/opt/freeswitch/etc/freeswitch",
];

const MAX_LENGTH: u64 = 4 << 20;

/// The settings that matter to us, each `None` where FreeSWITCH's default holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreeSwitch {
    /// `core-db-dsn` with the variables put in.
    pub core_db_dsn: Option<String>,
    /// `core-db-name`: the path of `core.db`.
    pub core_db_name: Option<String>,
    /// `listen-ip` and `listen-port` of the event socket; on loopback, where it listens everywhere.
    pub event_socket_address: Option<String>,
    /// `listen-ip` as it stands there.
    pub event_socket_listens: Option<String>,
    /// `apply-inbound-acl`: who may come; without it, only who is on loopback.
    pub event_socket_acl: Option<String>,
    /// Its password.
    pub event_socket_password: Option<String>,
}

/// The file of the core's settings in a configuration directory.
#[must_use]
pub fn switch_conf(dir: &Path) -> PathBuf {
    dir.join("autoload_configs/switch.conf.xml")
}

/// The file of the event socket's settings in a configuration directory.
#[must_use]
pub fn event_socket_conf(dir: &Path) -> PathBuf {
    dir.join("autoload_configs/event_socket.conf.xml")
}

/// Reads the configuration in `dir`. Files that are not there say nothing; one that cannot be read or is no
/// XML is an error that names it.
pub fn read(dir: &Path) -> anyhow::Result<FreeSwitch> {
    let vars = elements(&dir.join("vars.xml"), "X-PRE-PROCESS")?;
    let vars = variables(&vars);
    let switch = params(&switch_conf(dir), &vars)?;
    let socket = params(&event_socket_conf(dir), &vars)?;
    let event_socket_address = socket.get("listen-port").map(|port| {
        let host = match socket.get("listen-ip").map(String::as_str) {
            // It listens everywhere: it is asked on loopback.
            None | Some("" | "0.0.0.0" | "::") => "127.0.0.1",
            Some(host) => host,
        };
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    });
    Ok(FreeSwitch {
        core_db_dsn: switch.get("core-db-dsn").filter(|dsn| !dsn.is_empty()).cloned(),
        core_db_name: switch.get("core-db-name").filter(|name| !name.is_empty()).cloned(),
        event_socket_address,
        event_socket_listens: socket.get("listen-ip").cloned(),
        event_socket_acl: socket.get("apply-inbound-acl").cloned(),
        event_socket_password: socket.get("password").cloned(),
    })
}

/// A SIP profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// As its file is called.
    pub name: String,
    /// `log-auth-failures`, which is off unless set.
    pub logs_failures: bool,
}

/// The SIP profiles in `dir`, by name; none where there are no files. One that cannot be read is an error that names it.
pub fn profiles(dir: &Path) -> anyhow::Result<Vec<Profile>> {
    let vars = variables(&elements(&dir.join("vars.xml"), "X-PRE-PROCESS")?);
    let dir = dir.join("sip_profiles");
    let mut files = match std::fs::read_dir(&dir) {
        Ok(files) => files.map(|file| Ok(file?.path())).collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
    }
    .with_context(|| format!("cannot read {}", dir.display()))?;
    files.retain(|file| file.extension().is_some_and(|end| end == "xml"));
    files.sort();
    let profile = |file: &PathBuf| {
        let settings = params(file, &vars)?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let logs_failures = settings.get("log-auth-failures").is_some_and(|value| is_true(value));
        Ok(Profile { name, logs_failures })
    };
    files.iter().map(profile).collect()
}

/// As FreeSWITCH's `switch_true` has it.
pub(crate) fn is_true(value: &str) -> bool {
    const TRUE: [&str; 8] = ["yes", "on", "true", "t", "enabled", "active", "allow", "1"];
    TRUE.contains(&value.trim().to_ascii_lowercase().as_str())
}

type Attributes = HashMap<String, String>;

/// The attributes of every element of this name; comments do not count.
fn elements(path: &Path, name: &str) -> anyhow::Result<Vec<Attributes>> {
    let content = match state_file::read_regular(path, MAX_LENGTH) {
        Ok(content) => content,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    parse(&content, name).with_context(|| format!("cannot read {}", path.display()))
}

fn parse(content: &[u8], name: &str) -> anyhow::Result<Vec<Attributes>> {
    let text = String::from_utf8_lossy(content);
    let mut reader = Reader::from_str(&text);
    // A fragment may close what it did not open.
    reader.config_mut().check_end_names = false;
    reader.config_mut().allow_unmatched_ends = true;
    let mut found = Vec::new();
    loop {
        match reader.read_event() {
            Ok(Event::Start(element) | Event::Empty(element))
                if element.name().as_ref() == name.as_bytes() =>
            {
                found.push(attributes(&element)?);
            }
            Ok(Event::Eof) => return Ok(found),
            Ok(_) => {}
            Err(error) => bail!("it is no XML at byte {}: {error}", reader.error_position()),
        }
    }
}

fn attributes(element: &BytesStart<'_>) -> anyhow::Result<Attributes> {
    element
        .attributes()
        .map(|attribute| {
            let attribute = attribute?;
            let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
            Ok((key, attribute.unescape_value()?.into_owned()))
        })
        .collect()
}

/// `<X-PRE-PROCESS cmd="set" data="name=value"/>`, later ones over earlier ones.
fn variables(elements: &[Attributes]) -> Attributes {
    let mut variables = Attributes::new();
    for element in elements.iter().filter(|element| element.get("cmd").is_some_and(|cmd| cmd == "set")) {
        if let Some((name, value)) = element.get("data").and_then(|data| data.split_once('=')) {
            let value = expand(value, &variables);
            variables.insert(name.trim().to_owned(), value);
        }
    }
    variables
}

fn params(path: &Path, vars: &Attributes) -> anyhow::Result<Attributes> {
    let params = elements(path, "param")?;
    Ok(params
        .iter()
        .filter_map(|param| {
            Some((param.get("name")?.clone(), expand(param.get("value")?, vars).trim().to_owned()))
        })
        .collect())
}

/// Puts variables in for `$${name}`; an unknown one is empty, as in FreeSWITCH.
fn expand(text: &str, vars: &Attributes) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$${") {
        out.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            out.push_str("$${");
            rest = after;
            continue;
        };
        out.push_str(vars.get(name.trim()).map_or("", String::as_str));
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("autoload_configs")).unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    #[test]
    fn puts_the_variables_of_a_fragment_into_the_dsn() {
        let dir = dir(&[
            (
                "vars.xml",
                "<!-- DSN -->\n<X-PRE-PROCESS cmd=\"set\" data=\"db_host=10.0.0.5\"/>\n\
                 <X-PRE-PROCESS cmd=\"set\" data=\"dsn=pgsql://hostaddr=$${db_host} dbname=freeswitch user=fusionpbx password='a=b &amp; c' options=\" />\n\
                 <!-- <X-PRE-PROCESS cmd=\"set\" data=\"dsn=sqlite:///dev/shm/core.db\"/> -->",
            ),
            (
                "autoload_configs/switch.conf.xml",
                "<configuration><settings><!-- <param name=\"core-db-dsn\" value=\"odbc://x\"/> -->\
                 <param name=\"core-db-dsn\" value=\"$${dsn}\" /></settings></configuration>",
            ),
        ]);
        let found = read(dir.path()).unwrap();
        let dsn = "pgsql://hostaddr=10.0.0.5 dbname=freeswitch user=fusionpbx password='a=b & c' options=";
        assert_eq!(found.core_db_dsn.as_deref(), Some(dsn));
    }

    #[test]
    fn reads_the_event_socket() {
        let param = |ip: &str| {
            format!(
                "<configuration name=\"event_socket.conf\"><settings><param name=\"listen-ip\" value=\"{ip}\"/>\
                     <param name=\"listen-port\" value=\"8022\"/><param name=\"password\" value=\"p&quot;w\"/></settings></configuration>"
            )
        };
        for (ip, address) in [
            ("0.0.0.0", "127.0.0.1:8022"),
            ("::", "127.0.0.1:8022"),
            ("::1", "[::1]:8022"),
            ("192.0.2.1", "192.0.2.1:8022"),
        ] {
            let dir = dir(&[("autoload_configs/event_socket.conf.xml", &param(ip))]);
            let found = read(dir.path()).unwrap();
            assert_eq!(found.event_socket_address.as_deref(), Some(address));
            assert_eq!(found.event_socket_password.as_deref(), Some("p\"w"));
        }
    }

    #[test]
    fn profiles_log_failures_only_where_they_say_so() {
        let dir = dir(&[]);
        std::fs::create_dir(dir.path().join("sip_profiles")).unwrap();
        let param = |value: &str| {
            format!(
                "<profile><settings><param name=\"log-auth-failures\" value=\"{value}\"/></settings></profile>"
            )
        };
        for (name, text) in [
            ("a.xml", param("true")),
            ("b.xml", param("false")),
            ("c.xml", "<profile/>".to_owned()),
            ("d.xml.noload", param("true")),
        ] {
            std::fs::write(dir.path().join("sip_profiles").join(name), text).unwrap();
        }
        let profiles = profiles(dir.path()).unwrap();
        let found: Vec<_> =
            profiles.iter().map(|profile| (profile.name.as_str(), profile.logs_failures)).collect();
        assert_eq!(found, [("a", true), ("b", false), ("c", false)]);
        assert_eq!(super::profiles(Path::new("/nonexistent")).unwrap(), []);
    }

    #[test]
    fn nothing_there_says_nothing() {
        assert_eq!(read(Path::new("/nonexistent")).unwrap(), FreeSwitch::default());
        let dir = dir(&[(
            "autoload_configs/switch.conf.xml",
            "<param name=\"core-db-dsn\" value=\"\"/><param name=\"core-db-dsn\"/>",
        )]);
        assert_eq!(read(dir.path()).unwrap(), FreeSwitch::default());
    }

    #[test]
    fn an_unknown_variable_is_empty_and_an_open_one_stays() {
        let vars = Attributes::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(expand("x$${a}y$${b}z$${", &vars), "x1yz$${");
    }

    #[test]
    fn what_is_no_xml_is_an_error_that_names_the_file() {
        let dir = dir(&[("autoload_configs/switch.conf.xml", "<param name=\"x\" value=<>")]);
        let error = format!("{:#}", read(dir.path()).unwrap_err());
        assert!(error.contains("switch.conf.xml"), "{error}");
    }
}
