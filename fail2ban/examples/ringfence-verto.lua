-- FreeSWITCH: logs failed logins to mod_verto, which logs none itself, for fail2ban's jail ringfence-verto.
--
-- Copy it to FreeSWITCH's scripts directory (FusionPBX: /usr/share/freeswitch/scripts), and bind it in <settings> of
-- conf/autoload_configs/lua.conf.xml:
--
--   <hook event="CUSTOM" subclass="verto::login" script="ringfence-verto.lua"/>
--
-- mod_lua reads that when it starts: restart FreeSWITCH. Test: log in with a wrong password, then
--
--   fail2ban-regex /var/log/freeswitch/freeswitch.log ringfence-freeswitch-verto
--
-- Nothing but the address gets into the log: a login's name is the client's own text, line breaks included.

-- An IPv4 address, or nothing.
local function ipv4(text)
  local parts = { text:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$") }
  for _, part in ipairs(parts) do
    if tonumber(part) > 255 then
      return nil
    end
  end
  return parts[1] and text
end

-- An IPv6 address without a zone, or nothing.
local function ipv6(text)
  local _, gaps = text:gsub("::", "")
  if gaps > 1 or text:find(":::", 1, true) or not text:find("^[%x:]+$") then
    return nil
  end
  local groups = 0
  for group in text:gmatch("%x+") do
    groups = groups + 1
    if #group > 4 then
      return nil
    end
  end
  -- No colon at either end but that of a gap.
  if text:find("^:[^:]") or text:find("[^:]:$") then
    return nil
  end
  if (gaps == 1 and groups <= 7) or (gaps == 0 and groups == 8) then
    return text
  end
end

-- The address of "ADDRESS:PORT" or "[ADDRESS]:PORT", or nothing.
local function address(text)
  local host = text and #text <= 64 and (text:match("^%[(.*)%]:%d+$") or text:match("^(.*):%d+$"))
  if not host then
    return nil
  end
  return ipv4(host) or ipv4(host:match("^::[fF][fF][fF][fF]:(.*)$") or "") or ipv6(host)
end

if event and event:getHeader("verto_success") == "0" then
  local host = address(event:getHeader("verto_client_address"))
  if host then
    freeswitch.consoleLog("warning", "[ringfence] verto login failed FAIL2BAN_HOST=" .. host .. "\n")
  end
end
