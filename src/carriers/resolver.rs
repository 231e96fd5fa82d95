//! Addresses of host names, as SIP finds them: RFC 3263, all ways at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::deadline::Deadline;
use crate::state_file;

/// A name server that says nothing for so long is asked again, once. glibc's five seconds are for somebody who waits
/// for one name.
const PATIENCE: Duration = Duration::from_millis(1500);

/// So many times more a question is asked.
const RETRIES: usize = 1;

/// So many questions are open at a time.
const AT_ONCE: usize = 24;

/// Of one answer, so many addresses are taken.
const MAX_ADDRESSES: usize = 64;

/// Of one answer, so many SRV targets are taken.
const MAX_TARGETS: usize = 16;

/// Where SIP services are looked for: RFC 3263, section 4.1.
const SERVICES: [&str; 3] = ["_sip._udp", "_sip._tcp", "_sips._tcp"];

const LATE: &str = "no answer in time";

const ADDRESS_KINDS: [RecordType; 2] = [RecordType::A, RecordType::AAAA];

/// Looks up host names; clones share what they have heard.
#[derive(Clone)]
pub struct Resolver {
    dns: TokioResolver,
    hosts: Arc<Hosts>,
}

/// What a host name stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Why the answer may lack something. That there is no such name or record is no fault.
    pub(super) fault: Option<String>,
}

/// A name, lower case, and what is asked about it.
type Question = (String, RecordType);

/// What a name server, or the hosts file, said.
#[derive(Debug, Default)]
struct Reply {
    addresses: Vec<IpAddr>,
    targets: Vec<String>,
    fault: Option<String>,
}

impl Resolver {
    /// As the system does it: `resolv_conf` is usually `/etc/resolv.conf`, `hosts` is `/etc/hosts`. Files that are
    /// not there are as empty; without a name server the one on this host is asked (resolv.conf(5)). Name
    /// servers get less time than there, though.
    ///
    /// Errors name the file that cannot be read or understood.
    pub fn from_files(resolv_conf: &Path, hosts: &Path) -> anyhow::Result<Self> {
        let mut text = read_or_empty(resolv_conf)?;
        if !text.lines().any(|line| line.split_whitespace().next() == Some("nameserver")) {
            text.push_str("\nnameserver 127.0.0.1\n");
        }
        let (config, options) = parse_resolv_conf(&text)
            .map_err(|error| anyhow!("cannot understand {}: {error}", resolv_conf.display()))?;
        let mut known_hosts = Hosts::default();
        let text = read_or_empty(hosts)?;
        known_hosts
            .read_hosts_conf(text.as_bytes())
            .with_context(|| format!("cannot read {}", hosts.display()))?;
        Self::new(config, options, known_hosts)
    }

    /// Asks this one name server and heeds no hosts file.
    pub fn asking(server: SocketAddr) -> anyhow::Result<Self> {
        let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
        for connection in &mut name_server.connections {
            connection.port = server.port();
        }
        let config = ResolverConfig::from_name_servers(vec![name_server]);
        Self::new(config, ResolverOpts::default(), Hosts::default())
    }

    fn new(config: ResolverConfig, mut options: ResolverOpts, hosts: Hosts) -> anyhow::Result<Self> {
        options.timeout = options.timeout.min(PATIENCE);
        options.attempts = options.attempts.min(RETRIES);
        // We look ourselves, before it appends any search domain.
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let dns = builder.build().map_err(|error| anyhow!("no DNS resolver: {error}"))?;
        Ok(Self { dns, hosts: Arc::new(hosts) })
    }

    /// The addresses of each of these names, with those of its SIP services where wanted (`true`).
    ///
    /// Ends soon after `deadline` at the latest; what is not answered by then is a fault of its answer.
    pub(super) async fn look_up(
        &self,
        names: &BTreeMap<String, bool>,
        deadline: Deadline,
    ) -> BTreeMap<String, Answer> {
        let all = names.iter().flat_map(|(name, services)| questions(name, *services)).collect();
        let replies = self.ask_all(all, deadline).await;
        let mut answers = BTreeMap::new();
        for (name, services) in names {
            let mut answer = Answer::default();
            for question in questions(name, *services) {
                let Some(reply) = replies.get(&question) else { continue };
                answer.add(reply);
                for question in reply.targets.iter().flat_map(|target| questions(target, false)) {
                    if let Some(reply) = replies.get(&question) {
                        answer.add(reply);
                    }
                }
            }
            answers.insert(name.clone(), answer);
        }
        answers
    }

    /// Asks each question once, and the addresses of SRV targets as soon as those are known.
    async fn ask_all(&self, mut waiting: VecDeque<Question>, deadline: Deadline) -> HashMap<Question, Reply> {
        let mut asked: HashSet<Question> = waiting.iter().cloned().collect();
        let mut replies = HashMap::new();
        let mut open = JoinSet::new();
        loop {
            while open.len() < AT_ONCE
                && let Some(question) = waiting.pop_front()
            {
                let resolver = self.clone();
                open.spawn(async move {
                    let reply = resolver.ask(&question, deadline).await;
                    (question, reply)
                });
            }
            let Some(done) = open.join_next().await else { return replies };
            let Ok((question, reply)) = done else { continue };
            for question in reply.targets.iter().flat_map(|target| questions(target, false)) {
                if asked.insert(question.clone()) {
                    waiting.push_front(question);
                }
            }
            replies.insert(question, reply);
        }
    }

    async fn ask(&self, (name, kind): &Question, deadline: Deadline) -> Reply {
        let Ok(mut name) = Name::from_ascii(name) else {
            return Reply::fault("DNS takes no such name".to_owned());
        };
        if let Some(lookup) = self.hosts.lookup_static_host(&Query::query(name.clone(), *kind)) {
            return Reply::from_records(lookup.answers());
        }
        // Search domains are for bare host names. A wildcard in one must not answer for a carrier that is gone.
        if name.num_labels() > 1 {
            name.set_fqdn(true);
        }
        if deadline.has_passed() {
            return Reply::fault(LATE.to_owned());
        }
        match timeout(deadline.remaining(), self.dns.lookup(name, *kind)).await {
            Ok(Ok(lookup)) => Reply::from_records(lookup.answers()),
            Ok(Err(error)) if error.is_no_records_found() => Reply::default(),
            Ok(Err(error)) => Reply::fault(error.to_string()),
            Err(_) => Reply::fault(LATE.to_owned()),
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Answer {
    fn add(&mut self, reply: &Reply) {
        self.addresses.extend(&reply.addresses);
        if self.fault.is_none() {
            self.fault.clone_from(&reply.fault);
        }
    }
}

impl Reply {
    fn fault(fault: String) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    fn from_records(records: &[Record]) -> Self {
        let addresses = records.iter().filter_map(|record| record.data.ip_addr());
        let targets = records.iter().filter_map(|record| match &record.data {
            // "." is for a service that is decidedly not there (RFC 2782).
            RData::SRV(srv) if !srv.target.is_root() => Some(plain(&srv.target)),
            _ => None,
        });
        Self {
            addresses: addresses.take(MAX_ADDRESSES).map(|address| address.to_canonical()).collect(),
            targets: targets.take(MAX_TARGETS).collect(),
            fault: None,
        }
    }
}

/// What to ask about a name.
fn questions(name: &str, services: bool) -> Vec<Question> {
    let services = SERVICES.iter().filter(|_| services);
    services
        .map(|service| (format!("{service}.{name}"), RecordType::SRV))
        .chain(ADDRESS_KINDS.map(|kind| (name.to_owned(), kind)))
        .collect()
}

/// Lower case, without the final dot.
fn plain(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').map_or(text.clone(), str::to_owned)
}

fn read_or_empty(path: &Path) -> anyhow::Result<String> {
    match state_file::read_regular(path, 4 << 20) {
        Ok(content) => Ok(String::from_utf8_lossy(&content).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests;
