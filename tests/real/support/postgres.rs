//! A private PostgreSQL with FreeSWITCH's recorded tables.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{data, now, project, run, wait_for};

/// A server on a Unix socket and on loopback, with TLS; it ends with this value.
pub struct Postgres {
    dir: TempDir,
    bin: PathBuf,
    user: User,
    server: Option<Child>,
    pub port: u16,
}

/// PostgreSQL does not run as root.
#[derive(Clone, Copy)]
struct User(Option<u32>);

impl User {
    fn unprivileged() -> Self {
        let id = |name: &str| {
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
            passwd.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
            })
        };
        let root = run(Command::new("id").arg("-u")).trim() == "0";
        Self(root.then(|| id("postgres").or_else(|| id("nobody")).expect("an unprivileged user")))
    }

    fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(id) = self.0 {
            command.uid(id).gid(id);
        }
        command.current_dir("/");
        command
    }

    fn owns(self, path: &Path) {
        if let Some(id) = self.0 {
            chown(path, Some(id), Some(id)).unwrap();
        }
    }
}

impl Postgres {
    /// Starts a server: database `freeswitch`; role `ringfence` (password `s3cr=t '\`) may enter over the
    /// socket without a password, and read where it was [permitted](Self::permit).
    pub fn start() -> Self {
        let user = User::unprivileged();
        let dir = TempDir::with_prefix("rf-pg-").unwrap();
        user.owns(dir.path());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { dir, bin: bin(), user, server: None, port };
        server.prepare();
        server.launch();
        server
    }

    /// Starts a server with FusionPBX's tables, and these rows, in its database `fusionpbx`, which the role `ringfence`
    /// may read.
    pub fn with_fusionpbx(rows: &str) -> Self {
        let server = Self::start();
        server.psql_in("postgres", "CREATE DATABASE fusionpbx");
        server.psql_in("fusionpbx", &std::fs::read_to_string(data("fusionpbx-schema.sql")).unwrap());
        server.psql_in("fusionpbx", rows);
        server.permit("fusionpbx");
        server
    }

    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The certificate of the authority that vouches for the server.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    fn prepare(&self) {
        let dir = self.dir.path();
        let cluster = dir.join("data");
        run(self
            .user
            .command(&self.bin.join("initdb"))
            .args([
                "--no-sync",
                "--no-instructions",
                "--username=admin",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .arg(format!("--pgdata={}", cluster.display())));
        let (key, certificate) = self.make_certificate();
        let conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\nssl = on\n\
             ssl_cert_file = '{}'\nssl_key_file = '{}'\nmax_connections = 150\nshared_buffers = 64MB\n",
            self.port,
            dir.display(),
            certificate.display(),
            key.display(),
        );
        std::fs::write(cluster.join("postgresql.conf"), conf).unwrap();
        let hba = "local all all trust\nhostssl all tlsonly 127.0.0.1/32 scram-sha-256\nhostnossl all tlsonly all reject\n\
                   host all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(cluster.join("pg_hba.conf"), hba).unwrap();
    }

    /// A certificate of an authority of our own, for loopback.
    fn make_certificate(&self) -> (PathBuf, PathBuf) {
        let at = |name: &str| self.dir.path().join(name);
        let request = |subject: &str, key: &str, out: &str| {
            let mut openssl = Command::new("openssl");
            openssl.args(["req", "-newkey", "rsa:2048", "-nodes", "-subj", subject]);
            openssl.arg("-keyout").arg(at(key)).arg("-out").arg(at(out));
            openssl
        };
        run(request("/CN=lab authority", "ca.key", "ca.crt").args(["-x509", "-days", "2"]));
        run(&mut request("/CN=localhost", "server.key", "server.csr"));
        std::fs::write(at("extensions"), "subjectAltName = IP:127.0.0.1, DNS:localhost\n").unwrap();
        run(Command::new("openssl")
            .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"])
            .arg(at("server.csr"))
            .arg("-CA")
            .arg(at("ca.crt"))
            .arg("-CAkey")
            .arg(at("ca.key"))
            .arg("-extfile")
            .arg(at("extensions"))
            .arg("-out")
            .arg(at("server.crt")));
        let (key, certificate) = (at("server.key"), at("server.crt"));
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        self.user.owns(&key);
        self.user.owns(&certificate);
        (key, certificate)
    }

    fn launch(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let server = self
            .user
            .command(&self.bin.join("postgres"))
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
        wait_for("PostgreSQL", || {
            let dead = self.server.as_mut().unwrap().try_wait().unwrap().is_some();
            assert!(!dead, "{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap());
            self.psql_command("postgres", "SELECT 1").output().unwrap().status.success()
        });
        self.psql_in(
            "postgres",
            "CREATE ROLE fusionpbx SUPERUSER; CREATE ROLE ringfence LOGIN; CREATE ROLE tlsonly LOGIN",
        );
        for role in ["ringfence", "tlsonly"] {
            self.psql_in("postgres", &format!("ALTER ROLE {role} PASSWORD 's3cr=t ''\\'"));
        }
        self.psql_in("postgres", "CREATE DATABASE freeswitch OWNER fusionpbx");
    }

    /// FreeSWITCH's recorded tables and rows; the registrations live for another hour.
    pub fn load_recorded(&self) {
        for file in ["db/pgsql-registrations-schema.sql", "db/pgsql-registrations-rows.sql"] {
            let sql = std::fs::read_to_string(data(file)).unwrap();
            // Newer dumps have commands that an older psql does not know.
            let sql: Vec<_> = sql.lines().filter(|line| !line.starts_with('\\')).collect();
            self.psql(&sql.join("\n"));
        }
        let expires = now() + 3600;
        self.psql(&format!(
            "SET search_path = public; UPDATE sip_registrations SET expires = {expires}; UPDATE registrations SET expires = {expires}; \
             GRANT SELECT ON ALL TABLES IN SCHEMA public TO tlsonly"
        ));
        self.permit("freeswitch");
    }

    /// The role `ringfence` may read there what we ask for: by the file that is shipped for it. What that warns of.
    pub fn permit(&self, database: &str) -> String {
        let file = project("packaging/sql/ringfence-role.sql");
        let output = self.psql_at(database).arg("-f").arg(file).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        stderr.into_owned()
    }

    /// Runs SQL in FreeSWITCH's database.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in("freeswitch", sql)
    }

    /// Runs SQL in this database.
    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        run(&mut self.psql_command(database, sql))
    }

    pub fn psql_command(&self, database: &str, sql: &str) -> Command {
        let mut command = self.psql_at(database);
        command.arg("-c").arg(sql);
        command
    }

    fn psql_at(&self, database: &str) -> Command {
        let beside = self.bin.join("psql");
        let mut command = Command::new(if beside.exists() { beside } else { "psql".into() });
        command.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", "admin", "-d", database, "-p"]);
        command.arg(self.port.to_string()).arg("-h").arg(self.dir.path());
        command
    }

    /// Stops the server and its workers in their tracks: connections are taken by the kernel, and nobody
    /// answers.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, what: Signal) {
        let server = self.server.as_ref().unwrap().id();
        let workers = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
        for worker in workers.split_whitespace() {
            signal(worker.parse().unwrap(), what);
        }
        signal(server, what);
    }
}

/// The process may be gone by now.
fn signal(process: u32, signal: Signal) {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // "Immediate shutdown": its workers go too. A frozen one must be woken for it.
            signal(server.id(), Signal::QUIT);
            signal(server.id(), Signal::CONT);
            let _ = server.wait();
        }
    }
}

/// The newest server under Debian's directory, or else the one on PATH.
fn bin() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_server = |bin: &PathBuf| bin.join("initdb").exists();
    debian
        .map(|version| version.path().join("bin"))
        .filter(has_server)
        .max()
        .or_else(|| std::env::split_paths(&path).find(has_server))
        .expect("PostgreSQL's initdb; `make setup` installs it")
}
