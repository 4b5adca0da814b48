package difftest_test

import (
	"regexp"
	"sync"
	"sync/atomic"
)

// A difference is one that is meant, with its reason; docs/compatibility.md
// has it too. Regular expressions have to match the whole; empty ones match
// anything.
type difference struct {
	scene, step, aspect string
	ours                bool   // the line is ours; else C's. Not for rows with to
	text                string // the line
	to                  string // on both sides text becomes this before lines are compared
	reason              string
	rare                bool // depends on who is faster: may fail to occur

	once sync.Once
	re   [4]*regexp.Regexp
	seen atomic.Int64
}

func (d *difference) compile() {
	d.once.Do(func() {
		for i, s := range []string{d.scene, d.step, d.aspect, d.text} {
			if s == "" {
				s = "(?s).*"
			}
			if i == 3 && d.to != "" {
				d.re[i] = regexp.MustCompile(s)
				continue
			}
			d.re[i] = regexp.MustCompile("^(?:" + s + ")$")
		}
	})
}

func (d *difference) line() *regexp.Regexp {
	d.compile()
	return d.re[3]
}

func (d *difference) concerns(scene, step, aspect string) bool {
	d.compile()
	return d.re[0].MatchString(scene) && d.re[1].MatchString(step) && d.re[2].MatchString(aspect)
}

func (d *difference) rewrite(lines []string) (changed bool) {
	for i, line := range lines {
		if next := d.line().ReplaceAllString(line, d.to); next != line {
			lines[i], changed = next, true
		}
	}
	return changed
}

// Scenes that have something in common.
const (
	lonely    = `alone|expectations alone|full cache|v26-.*` // their counters are compared
	cacheless = `v05-.*|v27-.*|expectations without caches`  // no internal cache
)

var differences = []*difference{
	// What is printed.
	{aspect: "stdout", step: `.*-x`, text: `(protoname="(?:sctp|dccp)".*<state>)\w+`, to: "${1}STATE", reason: "C prints the TCP state of the same number"},
	{aspect: "stdout", step: `.*-x`, text: `<type>\d+</type><code>\d+</code><id>\w+</id></layer4>`, to: "</layer4>", reason: "C says nothing of ICMP but its name"},
	{scene: lonely, rare: true, step: `.*-s cache`, aspect: "stdout", text: `internal\tactive objects:\t+ +5[67]$`, to: "internal active objects: N", reason: "a flow that began and ended before it was sent is nothing to send"},
	{scene: lonely, rare: true, step: `.*-s cache`, aspect: "stdout", text: `(active/total entries:\t+ +5\d/) +5[67]$`, to: "${1}N", reason: "likewise"},
	{scene: lonely, step: `\d+: .*; -s cache`, text: `update OK/failed:\t+ +\d+/`, to: "update OK/failed: N/", reason: "what -R finds as it was is no update"},

	{scene: "v38-.*", step: `[345]: -R.*`, aspect: "stdout", text: `\tactive/total entries:\t+ +38/N`, reason: "C's -R keeps the three that changed into a refused state"},
	{scene: "v38-.*", step: `[345]: -R.*`, aspect: "stdout", ours: true, text: `\tactive/total entries:\t+ +35/N`, reason: "likewise"},
	{scene: "v38-.*", step: `([6789]|10): .*`, aspect: "stdout", text: `\tactive/total entries:\t+ +77/N`, reason: "the same three, and one whose real destination is refused: C's filter in the kernel looks at the original one"},
	{scene: "v38-.*", step: `([6789]|10): .*`, aspect: "stdout", ours: true, text: `\tactive/total entries:\t+ +73/N`, reason: "likewise"},

	// Without an internal cache.
	{scene: cacheless, step: `-i( ct)? -x`, aspect: "stdout", text: `\w+ +\d+ .* use=\d+`, reason: "C prints plain text"},
	{scene: cacheless, step: `-i( ct)? -x`, aspect: "stdout", ours: true, text: `<flow>.*</flow>`, reason: "who asks for XML parses it"},
	{scene: cacheless, step: `1[1-5]: .*`, aspect: "kernel", reason: "C's -f deletes the kernel's entries: nothing is left"},
	{scene: cacheless, step: `1[1-5]: .*`, aspect: "kernel", ours: true, reason: "likewise: until -F ct they are here"},
	{scene: "expectations without caches", step: "-i expect( -x)?", aspect: "stdout", ours: true, text: `\d+ proto=6 .*|<flow>.*</flow>`, reason: "C takes the kernel's expectations for flows"},
	{scene: "expectations without caches", aspect: "log", text: `\[ERROR\] missing IPv[46] address\. You forgot to load nf_conntrack_ipv[46]\?`, reason: "likewise"},
	{scene: `v05-.*|v27-.*`, aspect: "log", text: "conntrackd: libnfnetlink.* Assertion `ssh' failed\\.|\\[notice\\] child process \\(pid=N\\) received signal \\(6\\)", reason: "C's -i expect -x without ExpectationSync ends in an assertion"},
	{scene: "v05-.*", rare: true, aspect: "log", text: `\[notice\] flushing kernel conntrack table \(scheduled\)`, reason: "PurgeTimeout is 5 seconds: a slow machine needs longer to come to -f"},
	{scene: "v05-.*", rare: true, aspect: "log", ours: true, text: `\[notice\] (flushing kernel conntrack table \(scheduled\)|scheduled flush cancelled)`, reason: "likewise"},

	// What is refused.
	{scene: `v4[236]-.*`, aspect: "course", text: "the runs went apart here", reason: "Stats mode is not supported, which is said"},

	// A commit that never ends.
	{scene: "v12-.*", step: `[2-6]: .*; -s cache`, aspect: "stdout", text: `cache:external\tactive objects:\t+ +56|\tactive/total entries:\t+ +(56|112)/N`, reason: "with HashSize up to 8192 C refuses to flush after a commit"},
	{scene: "v12-.*", step: `[2-6]: .*; -s cache`, aspect: "stdout", ours: true, text: `cache:external\tactive objects:\t+ +0|\tactive/total entries:\t+ +(0|56)/N`, reason: "likewise"},
	{scene: "v12-.*", aspect: "log", text: `\[ERROR\] ignoring flush command, commit still in progress`, reason: "likewise"},
	{scene: "v12-.*", aspect: "log", ours: true, text: `\[notice\] flushing caches`, reason: "likewise"},

	// What a commit writes.
	{aspect: "kernel", text: `^(proto 132 .*) vtag \[[18] 2\]`, to: "$1 vtag", reason: "C's be-liberal flag of TCP falls into the verification tag of SCTP"},

	// What is logged.
	{aspect: "log", text: `\[warning\] (scheduler configuration failed: Invalid argument\. .*|can't set scheduler \w+ priority 0: invalid argument)`, to: "[warning] scheduler", reason: "our own words"},
	{aspect: "log", ours: true, text: `\[warning\] DIR/conf:\d+:\d+: .*`, reason: "with file, line and column; more is said than C says"},
	{aspect: "log", text: configWarnings, reason: "likewise"},
	{scene: "v26-.*", aspect: "log", text: `\[warning\] ff15::37:82 is an invalid interface`, reason: "C wants Interface after IPv6_address"},
	{scene: "v26-.*", aspect: "stderr", text: `\[warning\]`, reason: "likewise"},
	{scene: "v08-.*", aspect: "log", text: `()`, reason: "C's warning ends in an empty line"},
	{aspect: "log", ours: true, rare: true, text: `\[warning\] can't reach syslog: .*`, reason: "C does not notice that there is none"},
	{aspect: "log", text: `\[notice\] NetlinkBufferSize is either not set or .*`, reason: "said of every configuration without the keyword"},
	{aspect: "log", ours: true, rare: true, text: `\[warning\] HashLimit \d+ is less than net.netfilter.nf_conntrack_max \d+: .*`, reason: "flows beyond it are not replicated, and nobody would know"},
	{scene: "full cache", aspect: "log", ours: true, text: `\[warning\] internal cache is full .*`, reason: "likewise"},
	{scene: "v19-.*", aspect: "log", ours: true, text: `\[warning\] datagrams could not be sent .*: destination address required`, reason: "a configuration without a destination, and C does not say that nothing leaves"},
	{aspect: "log", ours: true, text: `\[notice\] the other node has \(re\)started: exchanging all entries`, reason: "C does not do it"},

	{scene: "v55-.*", aspect: "course", reason: "C does not start: this kernel has no helpers in user space, which we do not run"},
	{aspect: "log", ours: true, text: `\[notice\] resync completed: the external cache has all entries of the other node`, reason: "C does not know"},
	{aspect: "log", ours: true, rare: true, text: `\[notice\] ready to take over: .*`, reason: "likewise"},
	{aspect: "log", ours: true, rare: true, text: `\[warning\] the other node is silent: .*|\[notice\] the other node is heard again, .*`, reason: "C says nothing of it"},
	{aspect: "log", ours: true, rare: true, text: `\[(notice|warning)\] commit verified: \d+ of \d+ entries are in the kernel.*`, reason: "C does not look"},
}

// configWarnings are C's about the files of the corpus.
const configWarnings = `\[warning\] (` +
	`No synchronization mode specified\. Defaulting to FT-FW mode\.|` +
	"Now `\\w+' mode is called `\\w+'\\. Please, update your conntrackd\\.conf file\\.|" +
	`'kern' is not a known syslog facility, ignoring|` +
	"getprotobyname\\(\\) cannot find protocol `nosuchproto' in /etc/protocols|" +
	`\S+ is not a valid (network|IPv4), ignoring|` +
	`netmask 10\.1\.0\.0 is repeated in the ignore pool|` +
	`\S+ is not a valid IPv4 address|` +
	"`CommitTimeout' can't be combined with `DisableExternalCache', ignoring this option\\. .*|" +
	"`IPv6_interface' not required, ignoring|" +
	`deprecated (nice|unix backlog) configuration, ignoring\..*)`

// cmdlineDifferences are those of TestCommandLine.
var cmdlineDifferences = []*difference{
	{aspect: "stdout", text: `^  -s +\[.*`, to: "  -s", reason: "C's help leaves out process; our own words"},
	{aspect: "stdout", text: `^(  -\w(?: \[[^]]*\])?), .*`, to: "$1", reason: "our own words for the same options"},
	{step: `(no daemon: )?-v`, aspect: "stdout", text: `^Connection tracking userspace daemon v1\.4\.7.*`, to: "version", reason: "the version of conntrackd that is followed, then ours"},
	{step: `(no daemon: )?-v`, aspect: "stdout", text: `\(C\) .*`, reason: "the second line of -v"},
	{step: `(no daemon: )?-v`, aspect: "stdout", ours: true, text: `Speaks .*`, reason: "likewise"},
	{step: unknownOption, aspect: "exit", text: "0", reason: "a script has to know of its error"},
	{step: unknownOption, aspect: "exit", ours: true, text: "1", reason: "likewise"},
	{step: wrongWord, aspect: "exit", text: "0", reason: "C executes the word as an option"},
	{step: wrongWord, aspect: "exit", ours: true, text: "1", reason: "likewise"},
	{aspect: "stdout", text: `^  -c \[ct\|expect\|<address>\]`, to: "  -c [ct|expect]", reason: "a group's node can commit what one peer has told"},
	{step: wrongWord, aspect: "stdout", ours: true, text: `"nonsense" is no address.*`, reason: "after -c it is taken for one"},
	{step: wrongWord, aspect: "stdout", reason: "C prints its usage: the word is an unknown option to it"},
	{step: strayWord, aspect: "exit", text: "0", reason: "C executes the word by its second letter"},
	{step: strayWord, aspect: "exit", ours: true, text: "1", reason: "likewise"},
	{step: strayWord, aspect: "stdout", ours: true, reason: "likewise: our usage"},
	{step: strayWord, aspect: "stderr", ours: true, text: `\[ERROR\]`, reason: "likewise"},
	{step: "-d", aspect: "stderr", ours: true, text: `\[ERROR\]`, reason: "C says in its log only that another one runs"},
	{step: `(no daemon: )?(-stats|-ix)`, aspect: "stderr", ours: true, text: `\[warning\]`, reason: "letters that are ignored deserve a word"},
}

const (
	unknownOption = `(no daemon: )?(-V|-S|--dump|-q)`
	strayWord     = `(no daemon: )?-B ct`
	wrongWord     = `(no daemon: )?-[ieFRc] nonsense`
)
