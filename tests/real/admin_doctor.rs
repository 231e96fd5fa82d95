//! `ringfence doctor`: a host on which all is well, and each of a dozen that are broken in one thing. All of it is real (fail2ban, its
//! filters, FreeSWITCH's files and tables, the kernel's rules), but systemd, which answers as its tools would.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ringfence::deadline::Deadline;
use ringfence::fusionpbx::profiles;
use ringfence::postgres::Target;
use serde_json::Value;

use crate::support::{Container, Postgres, call, data, wait_for};

const JAIL_LOCAL: &str = "\
[DEFAULT]
banaction = ringfence-ban
ignoreip = 127.0.0.1/8 ::1

[sshd]
enabled = false

[ringfence-freeswitch]
enabled = true

[ringfence-account]
enabled = true
";

const SETTINGS: &str = "\
# A host.
[registrations]
source = \"sqlite\"
";

const SOCKET: &str = "<configuration name=\"event_socket.conf\"><settings><param name=\"listen-ip\" value=\"127.0.0.1\"/>\
                      <param name=\"listen-port\" value=\"8021\"/><param name=\"password\" value=\"9f8e7d\"/></settings></configuration>";

const PROFILE: &str = "<profile name=\"internal\"><settings><param name=\"log-auth-failures\" value=\"true\"/></settings></profile>";

const SYSTEMCTL: &str = "\
shift 2
for unit in \"$@\"; do echo \"Id=$unit\"; echo ActiveState=active; echo Result=success; echo; done";

const FAILURE: &str = "2020-11-20 12:42:31.801607 0.00% [WARNING] sofia_reg.c:1787 SIP auth failure (REGISTER) on sofia profile 'internal' \
                       for [101@a.example.com] from ip 203.0.113.66\n\
                       2020-11-20 12:42:32.801607 0.00% [NOTICE] sofia.c:1 x\n";

/// A FreeSWITCH host that is as it should be, and its fail2ban running.
fn host() -> Container {
    let host = Container::new();
    host.write("/etc/freeswitch/autoload_configs/event_socket.conf.xml", SOCKET);
    host.write("/etc/freeswitch/sip_profiles/internal.xml", PROFILE);
    let schema = data("db/sofia_reg_internal.schema.sql");
    let schema = std::fs::read_to_string(schema).unwrap();
    host.write("/tmp/schema.sql", &schema);
    host.shell("mkdir -p /var/lib/freeswitch/db; sqlite3 -bail /var/lib/freeswitch/db/sofia_reg_internal.db < /tmp/schema.sql");
    host.write("/var/log/freeswitch/freeswitch.log", &FAILURE.repeat(3));
    host.write("/etc/ringfence/ringfence.toml", SETTINGS);
    host.write("/etc/fail2ban/jail.local", JAIL_LOCAL);
    host.write("/var/log/fail2ban.log", "");
    host.shell(
        "mkdir -p /run/systemd/system /etc/systemd/system/timers.target.wants /etc/systemd/system/sysinit.target.wants
         for unit in ban block; do touch /etc/systemd/system/timers.target.wants/ringfence-$unit.timer; done
         touch /etc/systemd/system/sysinit.target.wants/ringfence-sets.service",
    );
    host.has_program("/usr/bin/systemctl", SYSTEMCTL);
    host.has_program("/usr/bin/timedatectl", "echo yes");
    // The log is of a day in the past, or what is in it would be banned.
    host.shell("fail2ban-server -xb start >/dev/null");
    wait_for("fail2ban-server", || {
        call(host.command("fail2ban-client").args(["status", "ringfence-freeswitch"])).code == 0
    });
    host
}

/// Subject, check, and what is so.
type Found = (String, String, String);

/// What needs doing, and the exit status that it makes. Tests run beside each other, and a machine that is busy is slow to start a
/// program: that is no finding.
fn findings(host: &Container) -> (i32, Vec<Found>) {
    findings_about(host, |subject| subject != "ignore")
}

fn findings_about(host: &Container, counts: impl Fn(&str) -> bool) -> (i32, Vec<Found>) {
    let called = host.admin(&["doctor", "--json"]);
    let all: Value =
        serde_json::from_str(&called.stdout).unwrap_or_else(|error| panic!("{error}: {called:?}"));
    let all = all["findings"].as_array().unwrap();
    assert!(all.iter().all(|finding| finding["about"].is_string() && finding["remedy"].is_string()));
    assert!(all.iter().all(|finding| finding["subject"] != "jail" || finding["about"] != ""), "{all:?}");
    for finding in all {
        assert_eq!(finding["remedy"] == "", finding["verdict"] == "fine", "{finding}");
    }
    let code = |all: &[&Value]| i32::from(all.iter().any(|finding| finding["verdict"] == "needs-doing"));
    assert_eq!(called.code, code(&all.iter().collect::<Vec<_>>()), "{all:?}");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let found: Vec<_> = all
        .iter()
        .filter(|finding| finding["verdict"] != "fine" && counts(&text(finding, "subject")))
        .collect();
    let told = |finding: &&Value| {
        let said = format!("{} -> {}", text(finding, "what"), text(finding, "remedy"));
        (text(finding, "subject"), text(finding, "check"), said)
    };
    (code(&found), found.iter().map(told).collect())
}

/// A way to break the host, the one finding that it must yield, and the way back.
struct Broken {
    by: &'static str,
    subject: &'static str,
    check: &'static str,
    /// Parts of what is said.
    says: &'static [&'static str],
    mend: &'static str,
}

const BROKEN: [Broken; 41] = [
    Broken {
        by: "sed -i 's/^source/sorce/' /etc/ringfence/ringfence.toml",
        subject: "settings",
        check: "settings",
        says: &["/etc/ringfence/ringfence.toml:3: unknown key `sorce`; did you mean `source`?"],
        mend: "sed -i 's/^sorce/source/' /etc/ringfence/ringfence.toml",
    },
    Broken {
        by: "echo 'event-socket = { password = \"s3cret\" }' >> /etc/ringfence/ringfence.toml; chmod 644 /etc/ringfence/ringfence.toml",
        subject: "settings",
        check: "permissions",
        says: &["which has a secret in it, has the mode 0644.", "-> chmod 0640 /etc/ringfence/ringfence.toml"],
        mend: "sed -i '/^event-socket/d' /etc/ringfence/ringfence.toml",
    },
    Broken {
        by: "printf '[ringfence-freeswitch]\\nignorecommand =\\n' > /etc/fail2ban/jail.d/zz.local",
        subject: "jail",
        check: "ignorecommand",
        says: &["ringfence-freeswitch: it has no ignorecommand", "exec /usr/bin/ringfence-ignore \"<ip>\""],
        mend: "rm /etc/fail2ban/jail.d/zz.local",
    },
    Broken {
        by: "printf '[ringfence-freeswitch]\\nignorecommand = /usr/bin/ringfence-ignore <ip>\\n' > /etc/fail2ban/jail.d/zz.local",
        subject: "jail",
        check: "ignorecommand",
        says: &["its ignorecommand is `/usr/bin/ringfence-ignore <ip>`. Only `exec PROGRAM \"<ip>\"` is safe"],
        mend: "rm /etc/fail2ban/jail.d/zz.local",
    },
    Broken {
        by: "printf '[ringfence-freeswitch]\\nignorecache = key=\"<F-USER>\", max-count=9\\n' > /etc/fail2ban/jail.d/zz.local",
        subject: "jail",
        check: "ignorecache",
        says: &["its ignorecache is not kept by \"<ip>\" alone"],
        mend: "rm /etc/fail2ban/jail.d/zz.local",
    },
    Broken {
        by: "printf '[ringfence-account]\\nignorecommand = exec /usr/bin/ringfence-ignore \"<ip>\"\\n' > /etc/fail2ban/jail.d/zz.local",
        subject: "jail",
        check: "ignorecommand",
        says: &["ringfence-account: it bans ", ", and has an ignorecommand"],
        mend: "rm /etc/fail2ban/jail.d/zz.local",
    },
    Broken {
        by: "printf '[ringfence-acl]\\nenabled = true\\nlogpath = /var/log/freeswitch/missing.log\\n' > /etc/fail2ban/jail.d/zz.local",
        subject: "jail",
        check: "logpath",
        says: &["ringfence-acl: its logpath matches no file"],
        mend: "rm /etc/fail2ban/jail.d/zz.local",
    },
    // Nobody told fail2ban.
    Broken {
        by: "printf '[ringfence-freeswitch]\\nmaxretry = 99\\n' > /etc/fail2ban/jail.d/zz.local",
        subject: "jail",
        check: "running",
        says: &["ringfence-freeswitch: fail2ban runs it with another maxretry than its files have", "-> fail2ban-client reload"],
        mend: "rm /etc/fail2ban/jail.d/zz.local",
    },
    Broken {
        by: "ringfence pause 10m > /dev/null",
        subject: "settings",
        check: "pause",
        says: &["Paused until ", "-> ringfence pause --end"],
        mend: "ringfence pause --end > /dev/null",
    },
    // fail2ban's own filter.
    Broken {
        by: "printf '[fs]\\nenabled = true\\nfilter = freeswitch\\nlogpath = /var/log/freeswitch/freeswitch.log\\nport = 5060\\n\
             ignorecommand = exec /usr/bin/ringfence-ignore \"<ip>\"\\nignorecache = key=\"<ip>\", max-time=20s\\n' \
             > /etc/fail2ban/jail.d/zz.local",
        subject: "jail",
        check: "filter",
        says: &["fs: the filter is faulty: ", "[ringfence-freeswitch] enabled = true"],
        mend: "rm /etc/fail2ban/jail.d/zz.local",
    },
    // As FusionPBX's own filters are.
    Broken {
        by: "printf '[Definition]\\nfailregex = \\\\[WARNING\\\\] sofia_reg.c:\\\\d+ SIP auth failure \\\\(REGISTER\\\\) on sofia profile \
             .\\\\w+. for \\\\[.*\\\\] from ip <HOST>\\n            .*from ip <HOST>\\n' > /etc/fail2ban/filter.d/loose.conf
             printf '[loose]\\nenabled = true\\nlogpath = /var/log/freeswitch/freeswitch.log\\nport = 5060\\n\
             ignorecommand = exec /usr/bin/ringfence-ignore \"<ip>\"\\nignorecache = key=\"<ip>\", max-time=20s\\n' \
             > /etc/fail2ban/jail.d/zz.local",
        subject: "jail",
        check: "filter",
        says: &["loose: the filter is faulty: ", "a client can make it ban any address"],
        mend: "rm /etc/fail2ban/jail.d/zz.local /etc/fail2ban/filter.d/loose.conf",
    },
    // The log's form was changed.
    Broken {
        by: "cp /var/log/freeswitch/freeswitch.log /tmp/kept; sed -i 's/^/host /' /var/log/freeswitch/freeswitch.log",
        subject: "jail",
        check: "filter",
        says: &["the filter matches nothing in the last 6 lines of /var/log/freeswitch/freeswitch.log, and 3 failures are there"],
        mend: "cp /tmp/kept /var/log/freeswitch/freeswitch.log",
    },
    Broken {
        by: "echo '[oops' > /etc/fail2ban/jail.d/zz.local",
        subject: "fail2ban",
        check: "configuration",
        says: &["Its configuration in /etc/fail2ban is refused"],
        mend: "rm /etc/fail2ban/jail.d/zz.local",
    },
    Broken {
        by: "mv /usr/bin/ringfence-ignore /usr/bin/kept; printf '#!/bin/sh\\n/usr/bin/sleep 0.2\\n' > /usr/bin/ringfence-ignore; \
             chmod 755 /usr/bin/ringfence-ignore",
        subject: "ignore",
        check: "latency",
        says: &["ringfence-ignore takes ", "fail2ban waits for it under one lock"],
        mend: "mv /usr/bin/kept /usr/bin/ringfence-ignore",
    },
    Broken {
        by: "mv /var/lib/freeswitch/db/sofia_reg_internal.db /tmp/",
        subject: "registrations",
        check: "source",
        says: &["Who is registered is not known: no sofia_reg_*.db or core.db in "],
        mend: "mv /tmp/sofia_reg_internal.db /var/lib/freeswitch/db/",
    },
    // A kernel without xt_string, as its tools tell it.
    Broken {
        by: "for kind in nft legacy; do file=/usr/sbin/iptables-$kind-restore; mv $file /tmp/; printf \
             '#!/bin/bash\\nrules=$(cat); case \"$rules\" in *\"-m string\"*) exit 2;; esac; \
             exec -a iptables-%s-restore /usr/sbin/xtables-%s-multi \"$@\" <<< \"$rules\"\\n' $kind $kind > $file; chmod 755 $file; done",
        subject: "kernel",
        check: "matches",
        says: &[
            "The kernel takes no rules with `string`, over IPv4. What needs it: limits of SIP's requests, scanners by name",
            "-> modprobe -a xt_string; where it is not found: apt-get install linux-modules-extra",
        ],
        mend: "mv /tmp/iptables-*-restore /usr/sbin/",
    },
    // One without xt_time, in both families.
    Broken {
        by: "for name in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do file=/usr/sbin/$name-restore; mv $file /tmp/; printf \
             '#!/bin/bash\\nrules=$(cat); case \"$rules\" in *\"-m time\"*) echo \"line 2: RULE_APPEND failed (No such file or directory)\" >&2; \
             exit 4;; esac; exec -a %s-restore /usr/sbin/xtables-%s-multi \"$@\" <<< \"$rules\"\\n' $name ${name#*-} > $file; \
             chmod 755 $file; done",
        subject: "kernel",
        check: "matches",
        says: &["The kernel takes no rules with `time`, over IPv4 and IPv6. What needs it: ringfence pause", "modprobe -a xt_time"],
        mend: "mv /tmp/ip*tables-*-restore /usr/sbin/",
    },
    // An iptables without its file for it.
    Broken {
        by: "for file in /usr/lib/*/xtables/libxt_u32.so; do echo $file > /tmp/where; mv $file /tmp/; done",
        subject: "kernel",
        check: "matches",
        says: &[
            "iptables takes no rules with `u32`, over IPv4 and IPv6. What needs it: iax-limit",
            "-> apt-get install --reinstall iptables",
        ],
        mend: "mv /tmp/libxt_u32.so $(cat /tmp/where)",
    },
    // Somebody else's secret.
    Broken {
        by: "echo s3cret > /etc/ringfence/secret; chmod 640 /etc/ringfence/secret; chown 1000 /etc/ringfence/secret; \
             echo 'event-socket = { password = { file = \"/etc/ringfence/secret\" } }' >> /etc/ringfence/ringfence.toml",
        subject: "settings",
        check: "permissions",
        says: &["/etc/ringfence/secret is a secret, and belongs to user 1000, who may change it.", "-> chown root /etc/ringfence/secret"],
        mend: "sed -i '/^event-socket/d' /etc/ringfence/ringfence.toml; rm /etc/ringfence/secret",
    },
    Broken {
        by: "chgrp 1000 /etc/ringfence; chmod 775 /etc/ringfence",
        subject: "settings",
        check: "permissions",
        says: &[
            "/etc/ringfence, above settings or secrets, has the mode 0775 and the group 1000: others may replace them.",
            "-> chmod go-w /etc/ringfence",
        ],
        mend: "chgrp 0 /etc/ringfence; chmod 755 /etc/ringfence",
    },
    // fail2ban remembers nothing, or elsewhere, or not for long enough.
    Broken {
        by: "printf '[Definition]\\ndbfile = None\\n' > /etc/fail2ban/fail2ban.local",
        subject: "fail2ban",
        check: "database",
        says: &["It keeps no database (dbfile = None)", "[Definition]: dbfile = /var/lib/fail2ban/fail2ban.sqlite3"],
        mend: "rm /etc/fail2ban/fail2ban.local",
    },
    Broken {
        by: "cp /var/lib/fail2ban/fail2ban.sqlite3 /var/lib/fail2ban/other; \
             printf '[Definition]\\ndbfile = /var/lib/fail2ban/other\\n' > /etc/fail2ban/fail2ban.local",
        subject: "fail2ban",
        check: "database",
        says: &["Its database is /var/lib/fail2ban/other, and our tools read ", "[fail2ban]: database = \"/var/lib/fail2ban/other\""],
        mend: "rm /etc/fail2ban/fail2ban.local /var/lib/fail2ban/other",
    },
    Broken {
        by: "cd /var/lib/fail2ban; mv fail2ban.sqlite3 kept; printf '%0100d' 7 > fail2ban.sqlite3",
        subject: "fail2ban",
        check: "database",
        says: &["cannot read fail2ban's database", "not a database", "mv /var/lib/fail2ban/fail2ban.sqlite3 "],
        mend: "cd /var/lib/fail2ban; mv kept fail2ban.sqlite3",
    },
    Broken {
        by: "printf '[ringfence-freeswitch]\\nbantime = 1w\\n' > /etc/fail2ban/jail.d/zz.local",
        subject: "fail2ban",
        check: "dbpurgeage",
        says: &["after 1d (dbpurgeage), and ringfence-freeswitch bans for up to 7d", "dbpurgeage = 8d"],
        mend: "rm /etc/fail2ban/jail.d/zz.local",
    },
    // As on Fedora and its kin, and a journald that takes little.
    Broken {
        by: "printf 'module(load=\"imjournal\"  # all of it\\n  UsePid=\"system\")\\n*.* /var/log/freeswitch/freeswitch.log\\n' \
             > /etc/rsyslog.conf",
        subject: "syslog",
        check: "drops",
        says: &["it takes no more than 20000 lines in 10 minutes", "-> Give it Ratelimit.Interval=\"0\""],
        mend: "rm /etc/rsyslog.conf",
    },
    Broken {
        by: "printf 'module(load=\"imjournal\" Ratelimit.Interval=\"0\")\\n*.* /var/log/freeswitch/freeswitch.log\\n' > /etc/rsyslog.conf; \
             mkdir -p /etc/systemd/journald.conf.d; printf '[Journal]\\nRateLimitBurst=500\\n' > /etc/systemd/journald.conf.d/zz.conf",
        subject: "syslog",
        check: "journal",
        says: &["journald takes 500 lines of freeswitch.service in 30 s", "LogRateLimitIntervalSec=0"],
        mend: "rm /etc/rsyslog.conf /etc/systemd/journald.conf.d/zz.conf",
    },
    Broken {
        by: "printf '[lists.office]\\nkind = \"allow\"\\nentries = [\"203.0.113.0/24\"]\\n' >> /etc/ringfence/ringfence.toml; \
             cd /etc/systemd/system/timers.target.wants; touch ringfence-lists.timer ringfence-allow.timer",
        subject: "kernel",
        check: "sets",
        says: &["There are lists, and their sets are not in the kernel: rf-allow-ip4, ", "ringfence-lists load"],
        mend: "sed -i '/^.lists/,$d' /etc/ringfence/ringfence.toml; cd /etc/systemd/system/timers.target.wants; \
               rm ringfence-lists.timer ringfence-allow.timer",
    },
    // It hangs, as a program that waits for what never comes.
    Broken {
        by: "mv /usr/bin/fail2ban-client /tmp/; printf '#!/bin/sh\\nexec /usr/bin/sleep 60\\n' > /usr/bin/fail2ban-client; \
             chmod 755 /usr/bin/fail2ban-client",
        subject: "fail2ban",
        check: "version",
        says: &["fail2ban-client did not get done within 10 s."],
        mend: "mv /tmp/fail2ban-client /usr/bin/",
    },
    Broken {
        by: "sed -i 's/true/false/' /etc/freeswitch/sip_profiles/internal.xml",
        subject: "freeswitch",
        check: "log-auth-failures",
        says: &["Failures in the SIP profiles internal are not logged, by /etc/freeswitch/sip_profiles: no wrong password there is seen by ringfence-account, ringfence-freeswitch."],
        mend: "sed -i 's/false/true/' /etc/freeswitch/sip_profiles/internal.xml",
    },
    Broken {
        by: "sed -i 's/127.0.0.1/::/; s,</settings>,<param name=\"apply-inbound-acl\" value=\"lan\"/></settings>,' \
             /etc/freeswitch/autoload_configs/event_socket.conf.xml",
        subject: "freeswitch",
        check: "event-socket",
        says: &["The event socket listens at ::, for whom the ACL lan permits"],
        mend: "sed -i 's/::/127.0.0.1/; s/<param name=.apply[^>]*>//' /etc/freeswitch/autoload_configs/event_socket.conf.xml",
    },
    Broken {
        by: "mkdir /etc/asterisk; echo 'alwaysauthreject=no' > /etc/asterisk/sip.conf",
        subject: "asterisk",
        check: "alwaysauthreject",
        says: &["scanners are told which accounts exist", "alwaysauthreject=yes"],
        mend: "rm -r /etc/asterisk",
    },
    // event_guard was restarted.
    Broken {
        by: "iptables -N sip-auth-fail; iptables -A INPUT -j sip-auth-fail; iptables -A INPUT -j sip-auth-fail",
        subject: "firewall",
        check: "doubled-ban",
        says: &["has the same jump to sip-auth-fail 2 times", "-D INPUT"],
        mend: "iptables -F INPUT; iptables -X sip-auth-fail; ringfence-ban sync",
    },
    Broken {
        by: "iptables -A INPUT -i lo -j ACCEPT; iptables -P INPUT DROP",
        subject: "firewall",
        check: "ipv6-open",
        says: &["IPv4 is closed but for what rules accept, IPv6 is open"],
        mend: "iptables -P INPUT ACCEPT; iptables -D INPUT -i lo -j ACCEPT",
    },
    // Another program flushed our rules, and no timer puts them back.
    Broken {
        by: "cd /etc/systemd/system/timers.target.wants; touch ringfence-firewall.timer ringfence-allow.timer; \
             ringfence-firewall apply > /dev/null; iptables -F RINGFENCE",
        subject: "firewall",
        check: "order",
        says: &[
            "Not as applied: the rules of IPv4, and their jump directly behind the bans. They are not as they were applied",
            "-> ringfence-firewall restore",
        ],
        mend: "ringfence-firewall remove > /dev/null; cd /etc/systemd/system/timers.target.wants; \
               rm ringfence-firewall.timer ringfence-allow.timer",
    },
    // A jail's own log through syslog.
    Broken {
        by: "printf '*.* /var/log/freeswitch/freeswitch.log\\n$SystemLogRateLimitInterval 5\\n' > /etc/rsyslog.conf",
        subject: "syslog",
        check: "drops",
        says: &["/etc/rsyslog.conf has `$SystemLogRateLimitInterval 5`", "Set it to 0"],
        mend: "rm /etc/rsyslog.conf",
    },
    Broken {
        by: "mkdir /etc/iptables; iptables-save > /etc/iptables/rules.v4",
        subject: "boot",
        check: "saved-rules",
        says: &["/etc/iptables/rules.v4 holds ", "of Ringfence's: a boot brings back what is over by then.", "sed -i.bak"],
        mend: "rm -r /etc/iptables",
    },
    Broken {
        by: "rm /etc/systemd/system/timers.target.wants/ringfence-ban.timer",
        subject: "timers",
        check: "enabled",
        says: &["ringfence-ban.timer is not enabled", "systemctl enable --now ringfence-ban.timer"],
        mend: "touch /etc/systemd/system/timers.target.wants/ringfence-ban.timer",
    },
    Broken {
        by: "cp /usr/bin/systemctl /tmp/; sed -i 's/=active/=inactive/' /usr/bin/systemctl; \
             rm /etc/systemd/system/timers.target.wants/*-block.timer; \
             echo '* * * * * root exec ringfence-block expire' > /etc/cron.d/ringfence",
        subject: "timers",
        check: "running",
        says: &["ringfence-ban.timer is enabled, but does not run", "systemctl start ringfence-ban.timer"],
        mend: "mv /tmp/systemctl /usr/bin/; rm /etc/cron.d/ringfence; \
               touch /etc/systemd/system/timers.target.wants/ringfence-block.timer",
    },
    Broken {
        by: "printf '#!/bin/sh\\necho no\\n' > /usr/bin/timedatectl",
        subject: "clock",
        check: "synchronised",
        says: &["The clock is not synchronised", "timedatectl set-ntp true"],
        mend: "printf '#!/bin/sh\\necho yes\\n' > /usr/bin/timedatectl",
    },
    Broken {
        by: "mkdir -p /var/log/ringfence; mount -t tmpfs -o size=1m none /var/log/ringfence",
        subject: "disk",
        check: "room",
        says: &["In /var/log/ringfence (log-dir) only 1.0 MiB are free."],
        mend: "umount /var/log/ringfence",
    },
    Broken {
        by: "mkdir -p /var/log/audit; echo \"type=AVC msg=audit($(date +%s).1:1): avc:  denied  { read } for pid=1 comm=\\\"ringfence-ignor\\\" name=\\\"x\\\"\" \
             > /var/log/audit/audit.log",
        subject: "selinux",
        check: "denials",
        says: &["SELinux denied something to ringfence-ignor (1)", "audit2allow"],
        mend: "rm -r /var/log/audit",
    },
];

#[test]
fn each_broken_host_has_one_finding() {
    let host = host();
    assert_eq!(findings(&host), (0, vec![]), "a host on which all is well");
    for broken in BROKEN {
        // fail2ban refuses to read some of it, and goes on with what it has.
        let reload = if broken.subject == "jail" && broken.check != "running" {
            "fail2ban-client reload > /dev/null 2>&1 || true"
        } else {
            ":"
        };
        host.shell(&format!("{}\n{reload}", broken.by));
        let (code, found) =
            findings_about(&host, |subject| subject != "ignore" || broken.subject == "ignore");
        host.shell(&format!("{}\n{reload}", broken.mend));
        let what: Vec<_> =
            found.iter().map(|(subject, check, _)| (subject.as_str(), check.as_str())).collect();
        assert!(
            !what.is_empty() && what.iter().all(|what| *what == (broken.subject, broken.check)),
            "{}: {found:#?}",
            broken.by
        );
        assert_eq!(code, 1, "{}", broken.by);
        for says in broken.says {
            assert!(found.iter().any(|(.., text)| text.contains(says)), "{says} is not in {found:#?}");
        }
    }
    assert_eq!(findings(&host), (0, vec![]), "all was mended");
}

#[test]
fn the_text_has_what_needs_doing_first() {
    let host = host();
    // Links that nobody heeds.
    host.shell("rmdir /run/systemd/system");
    let shown = host.admin(&["doctor"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (1, ""));
    // What differs from machine to machine.
    let changing = [
        ("it answers within ", "N ms"),
        ("the newest log: ", "NOW"),
        ("fine         disk           at least ", "N are free for state and logs"),
        ("the host's rules are those of iptables-", "VARIANT"),
        ("fine         fail2ban       version ", "N"),
    ];
    let steady = |text: &str| -> String {
        let line = |line: &str| {
            let found =
                changing.iter().find_map(|(before, value)| Some((line.find(before)? + before.len(), value)));
            found.map_or_else(|| line.to_owned(), |(end, value)| line[..end].to_owned() + value) + "\n"
        };
        text.lines().map(line).collect()
    };
    assert_eq!(steady(&shown.stdout), EXPECTED);
    assert!(host.admin(&["doctor", "--help"]).stdout.contains("--json"));
}

const EXPECTED: &str = "\
3 things need doing, 1 could not be checked, 22 are fine.

VERDICT      SUBJECT        WHAT
needs doing  timers         ringfence-ban.timer is not enabled, nor is there a line of cron in its place: bans that fail2ban let go without a word stay in the kernel.
                            -> Take the line of `ringfence-ban sync` from /usr/share/doc/ringfence/examples/ringfence.cron into /etc/cron.d/ringfence.
needs doing  timers         ringfence-block.timer is not enabled, nor is there a line of cron in its place: blocked accounts are let go late, and flushed rules do not come back.
                            -> Take the line of `ringfence-block expire` from /usr/share/doc/ringfence/examples/ringfence.cron into /etc/cron.d/ringfence.
needs doing  timers         ringfence-sets.service is not enabled, nor is there a line of cron in its place: the sets are not there when saved rules are loaded at boot.
                            -> Take the line of `ringfence-lists load` from /usr/share/doc/ringfence/examples/ringfence.cron into /etc/cron.d/ringfence.
not checked  clock          Whether anything keeps the clock right is not known: systemd does not run here.
                            -> See: chronyc tracking, or ntpq -p
fine         settings       the settings have no secrets, and nobody else may change them
fine         fail2ban       its database /var/lib/fail2ban/fail2ban.sqlite3 can be read
fine         fail2ban       jails for SIP: ringfence-account, ringfence-freeswitch
fine         fail2ban       it runs, and answers
fine         fail2ban       version N
fine         jail           ringfence-account: its filter finds 3 failures in the last 6 lines of /var/log/freeswitch/freeswitch.log
fine         jail           ringfence-freeswitch: its filter finds 3 failures in the last 6 lines of /var/log/freeswitch/freeswitch.log
fine         jail           ringfence-account: reads its log, bans no addresses
fine         jail           ringfence-freeswitch: reads its log, asks whom to leave alone
fine         ignore         it answers within N ms
fine         registrations  no snapshot yet: nobody has asked since the last boot
fine         registrations  sqlite in /var/lib/freeswitch/db can be read
fine         freeswitch     the event socket is at 127.0.0.1:8021, with a password of its own
fine         freeswitch     log-auth-failures is on in all SIP profiles
fine         kernel         accounts are blocked by patterns, as it takes no program: no bpffs is mounted; run: mount -t bpf bpf /sys/fs/bpf
fine         kernel         it has sets (ip_set)
fine         kernel         it has what rules by these settings need, over IPv4 and IPv6: comment, multiport, tcp, udp, set, SET, string, hashlimit, u32, conntrack, socket, time
fine         firewall       no rules of ringfence-firewall were applied
fine         firewall       the host's rules are those of iptables-VARIANT
fine         boot           no rules are saved for the next boot
fine         clock          it is later than the newest log: NOW
fine         disk           at least N are free for state and logs
";

/// A jail that reads the journal, with a filter of its own.
const JOURNAL_JAIL: &str = "\
[fs-journal]
enabled = true
backend = systemd
filter = fs-journal
port = 5060
ignorecommand = exec /usr/bin/ringfence-ignore \"<ip>\"
ignorecache = key=\"<ip>\", max-time=20s
";

/// Writes entries into the host's journal: who says it, what more there is of the entry, and the message.
fn has_journal(host: &Container, entries: &[(&str, &str, &str)]) {
    // In the past, or they would be banned.
    let start = 1_605_876_000_000_000_u64;
    let mut text = String::new();
    for (at, (program, more, message)) in (1..).zip(entries) {
        let _ = write!(
            text,
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={at}\n_BOOT_ID={:032x}\n_HOSTNAME=pbx\n_COMM={program}\n\
             SYSLOG_IDENTIFIER={program}\n_PID=4711\n{more}MESSAGE={message}\n\n",
            start + at,
            1
        );
    }
    host.write("/tmp/export", &text);
    host.shell(
        "echo 0123456789abcdef0123456789abcdef > /etc/machine-id
         dir=/var/log/journal/0123456789abcdef0123456789abcdef; rm -rf $dir; mkdir -p $dir
         /lib/systemd/systemd-journal-remote -o $dir/system.journal /tmp/export 2> /dev/null",
    );
}

#[test]
fn filters_of_the_journal_are_tried_on_its_last_entries() {
    let host = host();
    let failure = "2020-11-20 12:42:31.801607 0.00% [WARNING] sofia_reg.c:1787 SIP auth failure (REGISTER) on sofia profile \
                   'internal' for [101@a.example.com] from ip 203.0.113.66";
    let of_freeswitch = [("freeswitch", "_TRANSPORT=syslog\n", failure); 4];
    let other = ("sshd", "", "SIP auth failure (REGISTER) of nobody");
    let filter = |ahead: &str| {
        let regex = "sofia_reg\\.c:\\d+ SIP auth failure \\(REGISTER\\) on sofia profile '\\w+' for \\[[^\\]]*\\] from ip <HOST>$";
        host.write(
            "/etc/fail2ban/filter.d/fs-journal.conf",
            &format!("[Definition]\nfailregex = ^pbx freeswitch\\[\\d+\\]: {ahead}{regex}\njournalmatch = _TRANSPORT=syslog _COMM=freeswitch\n"),
        );
    };
    let reload =
        "fail2ban-client reload > /dev/null 2>&1 || true; fail2ban-client status fs-journal > /dev/null";
    has_journal(&host, &[&of_freeswitch[..], &[other]].concat());
    filter(".*%% \\[WARNING\\] ");
    host.write("/etc/fail2ban/jail.d/journal.local", JOURNAL_JAIL);
    host.shell(reload);
    assert_eq!(findings(&host), (0, vec![]));
    let shown = host.admin(&["doctor"]).stdout;
    assert!(
        shown.contains("fs-journal: its filter finds 4 failures in the last 4 lines of the journal\n"),
        "{shown}"
    );

    let one = |check: &str, says: &[&str]| {
        let (_, found) = findings(&host);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].1, check);
        for says in says {
            assert!(found[0].2.contains(says), "{says} is not in {found:#?}");
        }
    };
    // As one that was made for a file.
    filter("\\[WARNING\\] ");
    host.shell(reload);
    one(
        "filter",
        &[
            "fs-journal: the filter matches nothing in the last 4 lines of the journal, and 4 failures are there.",
            "journalctl -n 20 _TRANSPORT=syslog _COMM=freeswitch. Has",
        ],
    );
    filter(".*%% \\[WARNING\\] ");
    host.shell(reload);
    host.shell("mkdir -p /etc/systemd/journald.conf.d; printf '[Journal]\\nRateLimitIntervalSec=10min\\n' > /etc/systemd/journald.conf.d/zz.conf");
    one(
        "journal",
        &["journald takes 10000 lines of freeswitch.service in 600 s", "fs-journal should count are lost"],
    );
    host.shell("rm /etc/systemd/journald.conf.d/zz.conf");
    // Nothing of FreeSWITCH's.
    has_journal(&host, &[other]);
    one(
        "filter",
        &[
            "fs-journal: its filter was not tried, as the journal has nothing that it reads.",
            "-> See what is there: journalctl -n 5 _TRANSPORT=syslog _COMM=freeswitch",
        ],
    );
}

/// Ends it amid its work.
#[test]
fn nothing_stays_in_tmp_of_who_was_ended() {
    let host = host();
    let there = || host.shell("ls -d /tmp/ringfence-* 2> /dev/null || true");
    for tool in ["doctor", "validate"] {
        for (signal, code, stays) in
            [("INT", 130, false), ("TERM", 143, false), ("HUP", 129, false), ("KILL", 137, true)]
        {
            let ended = host.shell(&format!(
                "ringfence {tool} > /dev/null 2>&1 & pid=$!
                 until ls -d /tmp/ringfence-*/* > /dev/null 2>&1; do
                     kill -0 $pid || {{ echo ended before; exit; }}
                     sleep 0.01
                 done
                 kill -{signal} $pid; status=0; wait $pid || status=$?; echo $status"
            ));
            assert_eq!(ended.trim(), code.to_string(), "{tool} {signal}");
            assert_eq!(!there().is_empty(), stays, "{tool} {signal}: {}", there());
        }
        // Somebody else's, and what is not of that form, stay.
        host.shell("mkdir -m 700 /tmp/ringfence-0000000000000001 /tmp/ringfence-mine; chown 1000 /tmp/ringfence-0000000000000001");
        host.admin(&[tool]);
        assert_eq!(there(), "/tmp/ringfence-0000000000000001\n/tmp/ringfence-mine\n", "{tool}");
        host.shell("rmdir /tmp/ringfence-0000000000000001 /tmp/ringfence-mine");
    }
}

#[test]
fn without_fail2ban_the_rest_is_examined() {
    let host = host();
    host.shell("mv /usr/bin/fail2ban-client /tmp/");
    let (code, found) = findings(&host);
    assert_eq!((code, found.len()), (1, 1), "{found:?}");
    assert!(
        found[0].2.starts_with("fail2ban-client is not there; install the package fail2ban. -> "),
        "{found:?}"
    );
}

/// As FusionPBX 5.5 has them, and 5.4 with text for boolean.
const PROFILES: &str = "
    CREATE TABLE v_sip_profiles (sip_profile_uuid uuid PRIMARY KEY, sip_profile_name text, sip_profile_enabled KIND);
    CREATE TABLE v_sip_profile_settings (sip_profile_setting_uuid uuid PRIMARY KEY, sip_profile_uuid uuid, \
        sip_profile_setting_name text, sip_profile_setting_value text, sip_profile_setting_enabled KIND);
    INSERT INTO v_sip_profiles VALUES
        ('31111111-1111-1111-1111-111111111111', 'internal', 'true'),
        ('32222222-2222-2222-2222-222222222222', 'external', 'true'),
        ('33333333-3333-3333-3333-333333333333', 'internal-ipv6', 'true'),
        ('34444444-4444-4444-4444-444444444444', 'unset', 'true'),
        ('35555555-5555-5555-5555-555555555555', 'off', 'false');
    INSERT INTO v_sip_profile_settings VALUES
        (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'log-auth-failures', 'true', 'true'),
        (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'auth-calls', 'false', 'true'),
        (gen_random_uuid(), '32222222-2222-2222-2222-222222222222', 'log-auth-failures', 'false', 'true'),
        (gen_random_uuid(), '33333333-3333-3333-3333-333333333333', 'log-auth-failures', 'true', 'false');";

#[test]
fn fusionpbx_says_which_profiles_log_failures() {
    let server = Postgres::start();
    let read = |database: &str| {
        let dir = server.socket_dir().display();
        let target = format!("host={dir} port={} dbname={database} user=ringfence", server.port);
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(10));
        profiles::read(&Target::parse(&target).unwrap(), deadline)
    };
    for (database, kind) in [("new", "boolean"), ("old", "text")] {
        server.psql_in("postgres", &format!("CREATE DATABASE {database}"));
        let missing = format!("{:#}", read(database).unwrap_err());
        assert!(missing.contains("it has no v_sip_profiles or no v_sip_profile_settings"), "{missing}");
        server.psql_in(database, &PROFILES.replace("KIND", kind));
        let denied = format!("{:#}", read(database).unwrap_err());
        assert!(
            denied.contains("must be granted SELECT on v_sip_profiles and v_sip_profile_settings"),
            "{denied}"
        );
        server.psql_in(database, "GRANT SELECT ON v_sip_profiles, v_sip_profile_settings TO ringfence");
        let profiles = read(database).unwrap();
        let found: Vec<_> =
            profiles.iter().map(|profile| (profile.name.as_str(), profile.logs_failures)).collect();
        let expected = [("external", false), ("internal", true), ("internal-ipv6", false), ("unset", false)];
        assert_eq!(found, expected, "{database}");
    }
}
