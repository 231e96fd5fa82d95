-- Who is blocked. An account that is blocked everywhere has the source ''; a block by hand has the jail ''.
-- Times are seconds since 1970.
CREATE TABLE blocks (
    domain     TEXT   NOT NULL,
    account    TEXT   NOT NULL,
    source     TEXT   NOT NULL,
    jail       TEXT   NOT NULL,
    seen_from  TEXT   NOT NULL,
    since      BIGINT NOT NULL,
    until      BIGINT NOT NULL,
    why        TEXT   NOT NULL,
    evidence   TEXT   NOT NULL,
    -- active; flushed: its jail let go of everything at once, at changed; stopped: its jail is not running.
    state      TEXT   NOT NULL,
    changed    BIGINT NOT NULL,
    -- 1: fail2ban has it among its bans.
    confirmed  BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (domain, account, source, jail)
);

-- What FusionPBX said of accounts a moment ago.
CREATE TABLE verdicts (
    domain  TEXT   NOT NULL,
    account TEXT   NOT NULL,
    verdict TEXT   NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (domain, account)
);

-- Known-good addresses that accounts were blocked for in the last minute, and until when that suspends blocks.
CREATE TABLE alarms (
    source TEXT   NOT NULL PRIMARY KEY,
    at     BIGINT NOT NULL
);
CREATE TABLE suspensions (
    until BIGINT NOT NULL
);
