-- The role "ringfence": it may read what Ringfence asks for, and nothing else that is not for everybody. For each database by itself, as a
-- superuser of PostgreSQL; it may be run again, as after an update of FusionPBX. Where the role was there before, it loses what else it was
-- granted on tables of the schema public; what it can do beside that is said:
--
--   sudo -u postgres psql -d fusionpbx  -f /usr/share/ringfence/sql/ringfence-role.sql
--   sudo -u postgres psql -d freeswitch -f /usr/share/ringfence/sql/ringfence-role.sql     where FreeSWITCH keeps its tables there
--
-- Tables that a database does not have are passed over. It is no password of a phone, of a gateway or of a user that may be read. But of the SIP
-- profiles' settings all values may: should one be a secret (odbc-dsn), leave v_sip_profile_settings out below, and ringfence doctor says
-- that it cannot look at log-auth-failures.
--
-- Then a password, and where it is used:
--
--   sudo -u postgres psql -c '\password ringfence'
--   install -m 0640 -g ringfence /dev/null /etc/ringfence/fusionpbx.secret
--     and into it: postgres://ringfence:PASSWORD@127.0.0.1/fusionpbx
--   in /etc/ringfence/ringfence.toml:
--     [fusionpbx]
--     postgres = { file = "/etc/ringfence/fusionpbx.secret" }
--     [registrations]                                              and another file for the database of FreeSWITCH
--     postgres = { file = "/etc/ringfence/freeswitch.secret" }

\set ON_ERROR_STOP on
SET client_min_messages = warning;

DO $$
BEGIN
    CREATE ROLE ringfence LOGIN;
EXCEPTION
    -- Also where two databases are done at once.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

ALTER ROLE ringfence NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
-- No question of ours takes longer, and none writes.
ALTER ROLE ringfence SET default_transaction_read_only = on;
ALTER ROLE ringfence SET statement_timeout = '30s';
ALTER ROLE ringfence SET idle_in_transaction_session_timeout = '60s';

DO $$
DECLARE
    wanted record;
    found text;
BEGIN
    -- Of columns, too. Nobody sees it without: all of this is one transaction.
    REVOKE ALL ON ALL TABLES IN SCHEMA public FROM ringfence;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO ringfence', current_database());
    FOR wanted IN
        SELECT * FROM (VALUES
            -- FusionPBX: which accounts there are.
            ('v_domains', 'domain_uuid domain_name domain_enabled'),
            ('v_extensions', 'domain_uuid extension number_alias enabled'),
            -- Its carriers.
            ('v_access_controls', 'access_control_uuid access_control_name access_control_default'),
            ('v_access_control_nodes', 'access_control_uuid node_type node_cidr node_description'),
            ('v_gateways', 'gateway proxy register_proxy outbound_proxy enabled'),
            -- Whom its event_guard blocked.
            ('v_event_guard_logs', 'hostname log_date filter ip_address extension user_agent log_status'),
            -- Its SIP profiles.
            ('v_sip_profiles', 'sip_profile_uuid sip_profile_name sip_profile_enabled'),
            ('v_sip_profile_settings',
             'sip_profile_uuid sip_profile_setting_name sip_profile_setting_value sip_profile_setting_enabled'),
            -- FreeSWITCH: who is registered.
            ('sip_registrations',
             'sip_user sip_host sip_username sip_realm network_ip expires user_agent'),
            ('registrations', 'reg_user realm network_ip expires')
        ) AS wanted (name, columns)
    LOOP
        -- Where the database finds it, and those of its columns that this version has.
        SELECT string_agg(format('%I', attname), ', ') INTO found FROM pg_attribute
            WHERE attrelid = to_regclass(wanted.name) AND attnum > 0 AND NOT attisdropped
            AND attname = ANY (string_to_array(regexp_replace(wanted.columns, '\s+', ' ', 'g'), ' '));
        IF found IS NOT NULL THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %s TO ringfence',
                (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = to_regclass(wanted.name)));
            EXECUTE format('GRANT SELECT (%s) ON %s TO ringfence', found, to_regclass(wanted.name));
        END IF;
    END LOOP;
    -- Of other roles, and of PUBLIC, nothing is taken: something else may need it.
    FOR found IN SELECT roleid::regrole FROM pg_auth_members WHERE member = 'ringfence'::regrole LOOP
        RAISE WARNING 'ringfence may do all that % may: REVOKE % FROM ringfence', found, found;
    END LOOP;
    IF has_schema_privilege('ringfence', 'public', 'CREATE') THEN
        RAISE WARNING 'ringfence, as everybody, may make tables in the schema public: REVOKE CREATE ON SCHEMA public FROM PUBLIC';
    END IF;
END
$$;
