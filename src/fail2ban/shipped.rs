//! The files of fail2ban that come with this version, and for each filter the lines of a log that it is tried with.
//!
//! They are built in, so that an installed tool can say whether what is installed beside it is the same, and works.

use std::net::IpAddr;

use serde_json::Value;

/// A file as it is shipped.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// In which directory of fail2ban's, and what it is called.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// Samples of a filter, in the format of fail2ban's own test.
#[derive(Clone, Copy, Debug)]
struct Written {
    filter: &'static str,
    text: &'static [u8],
}

macro_rules! files {
    ($($name:literal)*) => {
        [$(File { name: $name, text: include_str!(concat!("../../fail2ban/", $name)) }),*]
    };
}

macro_rules! samples {
    ($($filter:literal)*) => {
        [$(Written { filter: $filter, text: include_bytes!(concat!("../../tests/data/samples/", $filter)) }),*]
    };
}

/// All of them.
pub const FILES: [File; 32] = files! {
    "action.d/ringfence-allow.conf"
    "action.d/ringfence-ban-allports.conf"
    "action.d/ringfence-ban.conf"
    "action.d/ringfence-block.conf"
    "filter.d/ringfence-asterisk-notice.conf"
    "filter.d/ringfence-asterisk-probe.conf"
    "filter.d/ringfence-asterisk-success.conf"
    "filter.d/ringfence-asterisk.conf"
    "filter.d/ringfence-common.conf"
    "filter.d/ringfence-events-account.conf"
    "filter.d/ringfence-events-common.conf"
    "filter.d/ringfence-events.conf"
    "filter.d/ringfence-freeswitch-account.conf"
    "filter.d/ringfence-freeswitch-acl.conf"
    "filter.d/ringfence-freeswitch-challenge.conf"
    "filter.d/ringfence-freeswitch-common.conf"
    "filter.d/ringfence-freeswitch-ip-domain.conf"
    "filter.d/ringfence-freeswitch-mod-fail2ban.conf"
    "filter.d/ringfence-freeswitch-not-found.conf"
    "filter.d/ringfence-freeswitch-spoofed.conf"
    "filter.d/ringfence-freeswitch-verto.conf"
    "filter.d/ringfence-freeswitch.conf"
    "filter.d/ringfence-fusionpbx.conf"
    "filter.d/ringfence-nginx.conf"
    "filter.d/ringfence-recidive.conf"
    "jail.d/ringfence-asterisk.conf"
    "jail.d/ringfence-block.conf"
    "jail.d/ringfence-defaults.conf"
    "jail.d/ringfence-events.conf"
    "jail.d/ringfence-freeswitch.conf"
    "jail.d/ringfence-recidive.conf"
    "jail.d/ringfence-web.conf"
};

const SAMPLES: [Written; 18] = samples! {
    "ringfence-asterisk"
    "ringfence-asterisk-notice"
    "ringfence-asterisk-probe"
    "ringfence-asterisk-success"
    "ringfence-events"
    "ringfence-events-account"
    "ringfence-freeswitch"
    "ringfence-freeswitch-account"
    "ringfence-freeswitch-acl"
    "ringfence-freeswitch-challenge"
    "ringfence-freeswitch-ip-domain"
    "ringfence-freeswitch-mod-fail2ban"
    "ringfence-freeswitch-not-found"
    "ringfence-freeswitch-spoofed"
    "ringfence-freeswitch-verto"
    "ringfence-fusionpbx"
    "ringfence-nginx"
    "ringfence-recidive"
};

/// Lines of a log for a filter with some options, and whom they must yield.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// What stands behind the filter's name: `[mode=strict]`, or nothing.
    pub options: String,
    /// The lines of the log, each with its line break.
    pub log: Vec<u8>,
    /// Addresses and accounts, in order.
    pub guilty: Vec<String>,
}

/// The filters that have samples, in order.
pub fn filters() -> impl Iterator<Item = &'static str> {
    SAMPLES.iter().map(|samples| samples.filter)
}

/// The samples of a filter, by its options.
#[must_use]
pub fn samples(filter: &str) -> Vec<Samples> {
    let written = SAMPLES.iter().find(|samples| samples.filter == filter);
    written.map(|samples| parse(samples.text)).unwrap_or_default()
}

/// Whom fail2ban found, in one way of writing it: an address as the address itself, anything else as it is.
#[must_use]
pub fn same(whom: &str) -> String {
    whom.parse::<IpAddr>().map_or_else(|_| whom.to_owned(), |address| address.to_canonical().to_string())
}

fn parse(text: &[u8]) -> Vec<Samples> {
    let mut all: Vec<Samples> = vec![];
    // What the next lines are for: options, and what each line begins with.
    let mut current = vec![(String::new(), String::new())];
    let mut guilty = None;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let comment = |key: &str| -> Option<Value> {
            serde_json::from_slice(
                line.strip_prefix(b"# ")?.strip_prefix(key.as_bytes())?.strip_prefix(b":")?,
            )
            .ok()
        };
        if let Some(options) = comment("filterOptions") {
            current = match options {
                Value::Array(several) => several.iter().map(written).collect(),
                one => vec![written(&one)],
            };
        } else if let Some(comment) = comment("failJSON") {
            let whom = comment.get("fid").unwrap_or(&comment["host"]).as_str().map(same);
            guilty = if comment["match"] == true { whom } else { None };
        } else if !line.starts_with(b"#") && !line.trim_ascii().is_empty() {
            for (options, prefix) in &current {
                let at = all.iter().position(|samples| samples.options == *options).unwrap_or_else(|| {
                    all.push(Samples { options: options.clone(), ..Samples::default() });
                    all.len() - 1
                });
                all[at].log.extend_from_slice(prefix.as_bytes());
                all[at].log.extend_from_slice(line);
                all[at].guilty.extend(guilty.clone());
            }
            guilty = None;
        }
    }
    all
}

/// Options as `fail2ban-regex` takes them, and what a line of the journal begins with. What else is called `test.` is the test's own.
fn written(options: &Value) -> (String, String) {
    let prefix = options["test.prefix-line"].as_str().unwrap_or_default().to_owned();
    let all = options.as_object().into_iter().flatten().filter(|(key, _)| !key.starts_with("test."));
    let set: Vec<_> =
        all.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    (if set.is_empty() { String::new() } else { format!("[{}]", set.join(",")) }, prefix)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn names(dir: &str) -> impl Iterator<Item = String> + use<> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap())
    }

    #[test]
    fn none_is_left_out() {
        let there: BTreeSet<_> = ["action.d", "filter.d", "jail.d"]
            .into_iter()
            .flat_map(|dir| names(&format!("fail2ban/{dir}")).map(move |name| format!("{dir}/{name}")))
            .collect();
        assert_eq!(FILES.iter().map(|file| file.name.to_owned()).collect::<BTreeSet<_>>(), there);
        let there: BTreeSet<_> = names("tests/data/samples").collect();
        assert_eq!(filters().map(str::to_owned).collect::<BTreeSet<_>>(), there);
    }

    #[test]
    fn samples_are_lines_and_whom_they_yield() {
        let text = b"# a comment\n\n# failJSON: { \"match\": true, \"host\": \"::ffff:192.0.2.1\" }\none\n\
            # failJSON: { \"match\": false }\ntwo\n# filterOptions: [{\"mode\": \"x\"}, {\"logtype\": \"journal\", \
            \"test.prefix-line\": \"host \"}]\n# failJSON: { \"match\": true, \"fid\": \"101@d\" }\nthree\n";
        let samples = |options: &str, log: &str, guilty: &str| Samples {
            options: options.to_owned(),
            log: log.as_bytes().to_vec(),
            guilty: vec![guilty.to_owned()],
        };
        let expected = [
            samples("", "one\ntwo\n", "192.0.2.1"),
            samples("[mode=x]", "three\n", "101@d"),
            samples("[logtype=journal]", "host three\n", "101@d"),
        ];
        assert_eq!(parse(text), expected);
        assert!(filters().all(samples_of_all));
    }

    fn samples_of_all(filter: &'static str) -> bool {
        samples(filter).iter().all(|samples| !samples.guilty.is_empty())
    }
}
