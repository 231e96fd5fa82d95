//! Which accounts there are, from FusionPBX's own database: `v_domains` and `v_extensions`.

use std::io;

use anyhow::{Context, anyhow, bail, ensure};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio::runtime::{self, Runtime};

use super::NOT_ITS_DATABASE;
use crate::account::SipAccount;
use crate::deadline::Deadline;
use crate::postgres::{Target, is_missing_table, with_grant};

/// What FusionPBX says of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Existence {
    /// It has no such domain.
    NoDomain,
    /// The domain is not enabled.
    DomainDisabled,
    /// No extension of the domain has this number or number alias.
    NoExtension,
    /// The extension is not enabled.
    ExtensionDisabled,
    /// Both are there and enabled.
    Exists,
}

/// As [`SQL`] counts them: where several rows answer, the one that comes furthest counts.
const STEPS: [Existence; 5] = [
    Existence::NoDomain,
    Existence::DomainDisabled,
    Existence::NoExtension,
    Existence::ExtensionDisabled,
    Existence::Exists,
];

/// `enabled` is a text up to FusionPBX 5.4 and a boolean from 5.5 on; unset is no. Both names of an extension are one
/// column, so that many accounts are found by hashing, and not by comparing each with every extension.
const SQL: &str = "\
    SELECT EXISTS (SELECT FROM v_domains), array_agg(step ORDER BY number) FROM (\
    SELECT a.number, max(CASE \
    WHEN d.domain_uuid IS NULL THEN 0 \
    WHEN cast(d.domain_enabled AS text) IS DISTINCT FROM 'true' THEN 1 \
    WHEN e.name IS NULL THEN 2 \
    WHEN e.enabled IS DISTINCT FROM 'true' THEN 3 \
    ELSE 4 END) AS step \
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS a (name, domain, number) \
    LEFT JOIN v_domains AS d ON lower(d.domain_name COLLATE \"C\") = a.domain \
    LEFT JOIN (\
    SELECT domain_uuid, extension AS name, cast(enabled AS text) AS enabled FROM v_extensions \
    UNION ALL SELECT domain_uuid, number_alias, cast(enabled AS text) FROM v_extensions\
    ) AS e ON e.domain_uuid = d.domain_uuid AND e.name = a.name \
    GROUP BY a.number) AS steps";

impl Existence {
    /// Whether a device may register with it.
    #[must_use]
    pub fn is_known(self) -> bool {
        self == Self::Exists
    }

    /// As it is written down.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoDomain => "no-domain",
            Self::DomainDisabled => "domain-disabled",
            Self::NoExtension => "no-extension",
            Self::ExtensionDisabled => "extension-disabled",
            Self::Exists => "exists",
        }
    }

    /// What was written down.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        STEPS.into_iter().find(|existence| existence.name() == name)
    }

    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NoDomain => "FusionPBX has no such domain",
            Self::DomainDisabled => "the domain is disabled in FusionPBX",
            Self::NoExtension => "FusionPBX has no such extension in the domain",
            Self::ExtensionDisabled => "the extension is disabled in FusionPBX",
            Self::Exists => "FusionPBX has the extension",
        }
    }
}

/// Asks FusionPBX's own database (`target`, see [`own_database`](super::own_database)) for each account, in one
/// question; the answers are in the order of the accounts.
///
/// An error says that the database could not be read by `deadline`, is not FusionPBX's, or has no domain at all: then
/// nothing is known of any account.
pub fn look_up(
    target: &Target,
    accounts: &[SipAccount],
    deadline: Deadline,
) -> anyhow::Result<Vec<Existence>> {
    if accounts.is_empty() {
        return Ok(vec![]);
    }
    target.converse(deadline, async |connection| ask(connection, accounts).await)
}

/// FusionPBX's own database, with a connection that stays open between questions: for who asks again and again.
pub struct Directory {
    target: Target,
    connection: Option<PgConnection>,
    runtime: Runtime,
}

impl Directory {
    /// Nothing is connected yet.
    pub fn new(target: Target) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { target, runtime, connection: None })
    }

    /// As [`look_up`]. A connection that was open already and has failed is made anew once: the server may have been
    /// restarted.
    pub fn look_up(&mut self, accounts: &[SipAccount], deadline: Deadline) -> anyhow::Result<Vec<Existence>> {
        let Self { target, runtime, connection } = self;
        runtime.block_on(async {
            let answer = tokio::time::timeout(deadline.remaining(), async {
                if let Some(open) = connection
                    && let Ok(answer) = ask(open, accounts).await
                {
                    return Ok(answer);
                }
                let open = connection.insert(target.connect(deadline).await?);
                ask(open, accounts).await
            });
            let answer = answer.await.map_err(|_| anyhow!("no answer in time")).flatten();
            if answer.is_err() {
                // Where an answer is still to come, it would be taken for that to the next question.
                *connection = None;
            }
            answer.with_context(|| target.to_string())
        })
    }
}

async fn ask(connection: &mut PgConnection, accounts: &[SipAccount]) -> anyhow::Result<Vec<Existence>> {
    let (users, domains): (Vec<_>, Vec<_>) =
        accounts.iter().map(|account| (account.user(), account.domain())).unzip();
    let row = match sqlx::query(SQL).bind(users).bind(domains).persistent(false).fetch_one(connection).await {
        Ok(row) => row,
        Err(error) if is_missing_table(&error) => {
            bail!("it has no v_domains or no v_extensions, {NOT_ITS_DATABASE}")
        }
        Err(error) => return Err(with_grant(error, "v_domains and v_extensions")),
    };
    let any_domain: bool = row.try_get(0)?;
    ensure!(any_domain, "it has no domains; is it FusionPBX's database?");
    let steps: Vec<i32> = row.try_get(1)?;
    ensure!(steps.len() == accounts.len(), "{} answers for {} accounts", steps.len(), accounts.len());
    let existence = |step: i32| usize::try_from(step).ok().and_then(|step| STEPS.get(step).copied());
    Ok(steps.into_iter().filter_map(existence).collect())
}
