B=/tmp/wt/probe/target/debug/ringfence-firewall
mount -t tmpfs tmpfs /run
ip link set lo up
export RINGFENCE_CONFIG=/tmp/pt/r.toml
rm -rf /tmp/pt/state /tmp/pt/run
iptables-nft -A INPUT -i lo -j ACCEPT
$B apply --yes; echo apply $?
time $B verify --probe; echo verify $?
ip link
