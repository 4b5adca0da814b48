#!/bin/sh
#
# Tells the connection-tracking daemon of this firewall what it has become.
# keepalived runs it at every change of state:
#
#	vrrp_sync_group G1 {
#		...
#		notify_master "/etc/conntrackd/primary-backup.sh primary"
#		notify_backup "/etc/conntrackd/primary-backup.sh backup"
#		notify_fault  "/etc/conntrackd/primary-backup.sh fault"
#	}
#
# It works with conntrackgo and with conntrackd. Further arguments are ignored.
# A request that fails is logged and does not stop the others. The exit code is
# 0, or 1 for wrong usage and for a daemon that cannot be started.
#
# Changes in quick succession make runs overlap. One run works at a time, and
# one that has been overtaken while it waited does nothing but see to it that
# the daemon runs. So the state told last is the one that stays.

# Where things are. The environment has precedence.
: "${CONNTRACKD_BIN:=/usr/sbin/conntrackd}"
: "${CONNTRACKD_CONFIG:=/etc/conntrackd/conntrackd.conf}"
: "${CONNTRACKD_LOCK:=}"         # empty: LockFile of the configuration
: "${CONNTRACKD_LOG_TAG:=conntrack-failover}"
: "${CONNTRACKD_MAX_WAIT:=30}"   # seconds for an earlier run, then go on anyway

DEFAULT_LOCK=/var/lock/conntrackd.lock # the daemon's own default

# Without flock(1) overlapping runs are not kept apart; all else works.
command -v flock >/dev/null 2>&1 || flock() { :; }

usage() {
	echo "usage: ${0##*/} {primary|backup|fault}" >&2
	exit 1
}

log() {
	logger -t "$CONNTRACKD_LOG_TAG" -p "daemon.$1" -- "$state: $2" 9>&- || :
}

# request OPTION: one client request. Descriptor 9 is the lock on the turn; a
# daemon started here must not inherit it.
request() {
	"$CONNTRACKD_BIN" -C "$CONNTRACKD_CONFIG" "$@" 9>&-
}

# try OPTION PURPOSE: a request whose failure is logged.
try() {
	request "$1" || log err "failed to $2 ($CONNTRACKD_BIN $1)"
}

configured_lock() {
	lock=$(sed -n 's/^[[:space:]]*LockFile[[:space:]]\{1,\}"\{0,1\}\(\/[^"[:space:]]*\).*$/\1/p' \
		"$CONNTRACKD_CONFIG" 2>/dev/null | tail -n 1)
	echo "${lock:-$DEFAULT_LOCK}"
}

# wait_turn returns when no other run is at work. It fails if a later run has
# begun meanwhile: that one knows better what this firewall is.
wait_turn() {
	latest=$CONNTRACKD_LOCK.latest
	if ! { echo $$ >"$latest.$$" && mv -f "$latest.$$" "$latest" && touch "$CONNTRACKD_LOCK.turn"; }; then
		log warning "cannot write $latest, not waiting for earlier runs"
		return 0
	fi
	exec 9>"$CONNTRACKD_LOCK.turn"
	flock -w "$CONNTRACKD_MAX_WAIT" 9 ||
		log warning "an earlier run still works after $CONNTRACKD_MAX_WAIT seconds, going on"
	read -r last <"$latest" || return 0
	[ "$last" = $$ ]
}

# ensure_running starts the daemon if it does not answer. A crashed conntrackd
# leaves a lock file that refuses its next start; conntrackgo holds the file
# locked while it lives, so then it is not taken away.
ensure_running() {
	request -s >/dev/null 2>&1 && return 0
	if [ -f "$CONNTRACKD_LOCK" ] && flock -n "$CONNTRACKD_LOCK" true; then
		log warning "the daemon does not answer, removing $CONNTRACKD_LOCK"
		rm -f "$CONNTRACKD_LOCK"
	fi
	request -d && return 0
	log err "failed to start $CONNTRACKD_BIN"
	return 1
}

[ $# -ge 1 ] || usage
state=$1
case $state in
primary | backup | fault) ;;
*) usage ;;
esac

: "${CONNTRACKD_LOCK:=$(configured_lock)}"
if wait_turn; then
	overtaken=
else
	overtaken=yes
	log notice "overtaken by a later change of state"
fi

# After a boot the first change may be overtaken, but someone must start the
# daemon.
case $state in
backup) ensure_running || exit 1 ;;
esac
[ -z "$overtaken" ] || exit 0

case $state in
primary)
	try -c "commit the external cache"
	try -f "flush the caches"
	try -R "read the kernel table"
	try -B "send the table to the peers"
	;;
backup)
	try -t "schedule the purge of the kernel table"
	try -n "ask the peers for their table"
	;;
fault)
	try -t "schedule the purge of the kernel table"
	;;
esac
exit 0
