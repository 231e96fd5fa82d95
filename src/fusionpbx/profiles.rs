//! The SIP profiles of FreeSWITCH, which FusionPBX has in its database: `v_sip_profiles` and `v_sip_profile_settings`.

use anyhow::bail;

use super::NOT_ITS_DATABASE;
use crate::deadline::Deadline;
use crate::freeswitch::{Profile, is_true};
use crate::postgres::{Target, is_missing_table, with_grant};

/// More are not read.
const MAX_PROFILES: u32 = 1_000;

/// `enabled` is a text up to FusionPBX 5.4 and a boolean from 5.5 on.
const SQL: &str = "\
    SELECT left(p.sip_profile_name, 100), left(coalesce(max(s.sip_profile_setting_value), ''), 20) \
    FROM v_sip_profiles AS p LEFT JOIN v_sip_profile_settings AS s ON s.sip_profile_uuid = p.sip_profile_uuid \
    AND s.sip_profile_setting_name = 'log-auth-failures' \
    AND cast(s.sip_profile_setting_enabled AS text) = 'true' \
    WHERE cast(p.sip_profile_enabled AS text) = 'true' \
    GROUP BY p.sip_profile_uuid, p.sip_profile_name ORDER BY 1 LIMIT ";

/// The enabled profiles, by name. An error says that the database could not be read by `deadline`, or is not FusionPBX's.
pub fn read(target: &Target, deadline: Deadline) -> anyhow::Result<Vec<Profile>> {
    target.converse(deadline, async |connection| {
        let sql = format!("{SQL}{MAX_PROFILES}");
        let rows = sqlx::query_as(&sql).persistent(false).fetch_all(connection).await;
        let rows: Vec<(String, String)> = match rows {
            Ok(rows) => rows,
            Err(error) if is_missing_table(&error) => {
                bail!("it has no v_sip_profiles or no v_sip_profile_settings, {NOT_ITS_DATABASE}")
            }
            Err(error) => return Err(with_grant(error, "v_sip_profiles and v_sip_profile_settings")),
        };
        let profile = |(name, value): (String, String)| Profile { name, logs_failures: is_true(&value) };
        Ok(rows.into_iter().map(profile).collect())
    })
}
