package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/sirupsen/logrus"
	logrussyslog "github.com/sirupsen/logrus/hooks/syslog"
	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
)

// Formatter writes lines as the C daemon does, so that scripts that read its
// log go on working: [Sun Nov 22 18:37:22 2026] (pid=27836) [notice] text.
type Formatter struct{}

// Format implements logrus.Formatter.
func (Formatter) Format(e *logrus.Entry) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "[%s] (pid=%d) [%s] %s\n",
		e.Time.Format("Mon Jan _2 15:04:05 2006"), os.Getpid(), levelWord(e.Level), textOf(e))
	return b.Bytes(), nil
}

// textOf is what every destination says of an entry.
func textOf(e *logrus.Entry) string {
	if peer, ok := e.Data[peerField]; ok {
		return printable(fmt.Sprintf("%v: %s", peer, e.Message))
	}
	return printable(e.Message)
}

// peerField is the field of a line about one peer of a group: its address.
const peerField = "peer"

// printable keeps a message on one line and its control characters away from
// terminals: it may quote what a peer has sent.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// levelWord maps logrus levels to the C daemon's words; what an operator
// should read is logged at Info and called a notice.
func levelWord(l logrus.Level) string {
	switch l {
	case logrus.InfoLevel:
		return "notice"
	case logrus.WarnLevel:
		return "warning"
	case logrus.DebugLevel, logrus.TraceLevel:
		return "info"
	default:
		return "ERROR"
	}
}

// NewLogger returns a logger that writes notices to stdout and anything worse
// to stderr.
func NewLogger(stdout, stderr io.Writer) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.SetFormatter(Formatter{})
	log.AddHook(&writerHook{w: newTerminal(stdout), levels: []logrus.Level{logrus.InfoLevel}})
	log.AddHook(&writerHook{w: newTerminal(stderr), levels: []logrus.Level{
		logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}})
	return log
}

// A writerHook copies entries of some levels to a writer. It returns no error:
// logrus would leave out the hooks after it, and a terminal that has gone must
// not silence the log file.
type writerHook struct {
	w      io.Writer // takes lines from several goroutines
	levels []logrus.Level
}

func (h *writerHook) Levels() []logrus.Level { return h.levels }

func (h *writerHook) Fire(e *logrus.Entry) error {
	line, err := Formatter{}.Format(e)
	if err != nil {
		return err
	}
	_, _ = h.w.Write(line)
	return nil
}

// logFile is the LogFile destination; reopen serves log rotation.
type logFile struct {
	path string
	lossy
	f *os.File
}

func openLogFile(path string) (*logFile, error) {
	l := &logFile{path: path}
	return l, l.reopen()
}

// reopen opens the file anew; after an error the old one is kept. A named pipe
// needs no reader, as in C, if we may read it. Nobody waits for what is behind a
// pipe or a terminal: it takes what it can.
func (l *logFile) reopen() error {
	const how = os.O_APPEND | os.O_CREATE | unix.O_NONBLOCK
	access, regular := os.O_WRONLY, true
	if info, err := os.Stat(l.path); err == nil {
		regular = info.Mode().IsRegular()
		if info.Mode()&os.ModeNamedPipe != 0 {
			access = os.O_RDWR
		}
	}
	f, err := os.OpenFile(l.path, access|how, 0o600)
	if access == os.O_RDWR && errors.Is(err, os.ErrPermission) {
		f, err = os.OpenFile(l.path, os.O_WRONLY|how, 0o600)
	}
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	var w io.Writer = f
	if !regular {
		w = &terminal{f: f}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
	}
	l.f, l.w = f, w
	return nil
}

// entry writes a flow or an expectation as the C daemon does: without a level,
// as it is no message.
func (l *logFile) entry(now time.Time, text []byte) {
	_, _ = fmt.Fprintf(l, "%s\t%s\n", now.Format("Mon Jan _2 15:04:05 2006"), printable(string(text)))
}

// syslogFacilities are the words of General { Syslog }.
var syslogFacilities = map[string]syslog.Priority{
	"daemon": syslog.LOG_DAEMON,
	"local0": syslog.LOG_LOCAL0, "local1": syslog.LOG_LOCAL1,
	"local2": syslog.LOG_LOCAL2, "local3": syslog.LOG_LOCAL3,
	"local4": syslog.LOG_LOCAL4, "local5": syslog.LOG_LOCAL5,
	"local6": syslog.LOG_LOCAL6, "local7": syslog.LOG_LOCAL7,
}

// addDestinations adds the log file and syslog of the configuration. A syslog
// that cannot be reached is a warning: it may start later than we.
func addDestinations(log *logrus.Logger, cfg *confparse.Config) (*logFile, error) {
	if cfg.Syslog != "" {
		hook, err := newSyslogHook("", "", cfg.Syslog)
		if err != nil {
			log.Warnf("can't reach syslog: %v", err)
		}
		log.AddHook(hook)
	}
	if cfg.LogFile == "" {
		return nil, nil
	}
	f, err := openLogFile(cfg.LogFile)
	if err != nil {
		return nil, err
	}
	log.AddHook(&writerHook{w: f, levels: logrus.AllLevels})
	return f, nil
}

// newSyslogHook reaches the machine's syslog, or another for tests. After an
// error the hook is good all the same, and tries again.
func newSyslogHook(network, address, facility string) (*syslogHook, error) {
	h := &syslogHook{dial: func() (*logrussyslog.SyslogHook, error) {
		return logrussyslog.NewSyslogHook(network, address, syslogFacilities[facility]|syslog.LOG_INFO, "conntrack-tools")
	}}
	return h, h.connect()
}

// syslogHook strips the prefix that syslog writes itself. As a writerHook, it
// returns no error. The daemon does not wait for a syslog that takes no lines:
// they are given up, and when it takes some again the first says how many.
type syslogHook struct {
	mu                       sync.Mutex
	*logrussyslog.SyslogHook // its Writer is nil while syslog cannot be reached
	dial                     func() (*logrussyslog.SyslogHook, error)
	tried                    time.Time
	patient                  patient
	missing                  int // lines since the last one that was begun
}

// syslogRetry is the time between two attempts to reach syslog, which a line
// of the log waits for. Once reached, it is reached again by the Writer.
const syslogRetry = time.Second

func (h *syslogHook) connect() (err error) {
	h.tried = time.Now()
	h.SyslogHook, err = h.dial()
	return err
}

func (h *syslogHook) Fire(e *logrus.Entry) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Writer == nil && (time.Since(h.tried) < syslogRetry || h.connect() != nil) {
		return nil
	}
	w, level, text, missing := h.Writer, e.Level, textOf(e), h.missing
	begun, _ := h.patient.do(func() {
		if missing > 0 {
			_ = w.Warning(fmt.Sprintf("%d lines are missing here: %v", missing, errUnread))
		}
		_ = severity(w, level)(text)
	})
	if h.missing = 0; !begun {
		h.missing = missing + 1
	}
	return nil
}

// severity is how syslog writes lines of a level.
func severity(w *syslog.Writer, l logrus.Level) func(string) error {
	switch l {
	case logrus.InfoLevel:
		return w.Notice
	case logrus.WarnLevel:
		return w.Warning
	case logrus.DebugLevel, logrus.TraceLevel:
		return w.Info
	default:
		return w.Err
	}
}
