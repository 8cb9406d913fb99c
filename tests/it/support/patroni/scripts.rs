//! What the containers of a Patroni cluster run, and the commands for its faults.

use super::{Cut, DATABASE, LOOP_WAIT, PASSWORD, RETRY_TIMEOUT, TTL, USER};

/// While this file exists, a node's Patroni is not started again.
const DOWN: &str = "/tmp/failfast-down";

/// Returns when no process is left.
pub(super) const KILL: &str = "touch /tmp/failfast-down
    pkill -9 -u postgres
    for _ in $(seq 200); do pgrep -u postgres >/dev/null || exit 0; sleep 0.02; done
    exit 1";

pub(super) const START_AGAIN: &str = "rm -f /tmp/failfast-down";

/// The other processes of the server end when the first one is gone.
pub(super) const KILL_POSTGRES: &str = r#"kill -9 "$(head -n 1 "$PGDATA/postmaster.pid")""#;

pub(super) const HEAL: &str = "iptables --flush";

pub(super) fn partition(cut: Cut, peers: &[String]) -> String {
    match cut {
        Cut::Everybody => "iptables -I INPUT ! -i lo -j DROP && iptables -I OUTPUT ! -o lo -j DROP".to_owned(),
        Cut::Peers => format!(
            "set -e
            for ip in $(for peer in {}; do getent ahostsv4 \"$peer\" | awk 'NR == 1 {{ print $1 }}'; done); do
                iptables -I INPUT -s \"$ip\" -j DROP
                iptables -I OUTPUT -d \"$ip\" -j DROP
            done
            test \"$(iptables -S | grep -c DROP)\" = {}",
            peers.join(" "),
            2 * peers.len(),
        ),
    }
}

pub(super) fn etcd(host: &str) -> String {
    format!(
        "exec etcd --data-dir /tmp/etcd --unsafe-no-fsync --log-level warn \
        --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://{host}:2379"
    )
}

/// Patroni with a shorter lease than it accepts, and started again whenever it ends, as systemd would.
pub(super) fn node(name: &str, host: &str, etcd: &str) -> String {
    let messages = std::env::var("FAILFAST_TEST_MESSAGES").unwrap_or_else(|_| "C".to_owned());
    format!(
        r#"cat >/tmp/patroni.yml <<END
scope: failfast
name: {name}
restapi:
  listen: 0.0.0.0:8008
  connect_address: {host}:8008
etcd3:
  host: {etcd}:2379
bootstrap:
  dcs:
    ttl: {TTL}
    loop_wait: {LOOP_WAIT}
    retry_timeout: {RETRY_TIMEOUT}
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        max_connections: 200
        wal_retrieve_retry_interval: 100ms
        lc_messages: {messages}
  initdb:
    - encoding: UTF8
    - locale: C.UTF-8
    - no-sync
  post_bootstrap: /tmp/post-bootstrap
postgresql:
  listen: 0.0.0.0:5432
  connect_address: {host}:5432
  data_dir: $PGDATA
  bin_dir: /usr/lib/postgresql/17/bin
  basebackup:
    - checkpoint: fast
    - no-sync
  parameters:
    fsync: 'off'
    unix_socket_directories: /tmp
  pg_hba:
    - local all all trust
    - host all all all scram-sha-256
    - host replication all all scram-sha-256
  authentication:
    superuser:
      username: {USER}
      password: {PASSWORD}
    replication:
      username: replicator
      password: {PASSWORD}
END
cat >/tmp/post-bootstrap <<'END'
#!/bin/sh
exec psql -d "$1" -c 'CREATE DATABASE {DATABASE}'
END
chmod +x /tmp/post-bootstrap
sed -i "s/'ttl', 20)/'ttl', {TTL})/" /usr/lib/python3/dist-packages/patroni/config.py
install -d -o postgres -g postgres -m 0700 "$PGDATA"
while true; do
    if ! test -e {DOWN}; then
        setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/tmp patroni /tmp/patroni.yml
    fi
    sleep 0.1
done"#
    )
}

/// The settings are those of `extras/confs/haproxy.cfg` of Patroni. It asks each node every three seconds, and changes
/// its mind after three bad or two good answers.
pub(super) fn proxy(hosts: &[String]) -> String {
    let servers = hosts.iter().map(|host| format!("    server {host} {host}:5432 maxconn 100 check port 8008\n"));
    let servers: String = servers.collect();
    format!(
        r#"cat >/tmp/haproxy.cfg <<END
global
    maxconn 1000
defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s
listen primary
    bind *:5000
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
{servers}
listen replicas
    bind *:5001
    option httpchk OPTIONS /replica
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
{servers}
END
exec haproxy -db -f /tmp/haproxy.cfg"#
    )
}
