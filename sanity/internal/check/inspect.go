package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// subject is something that is looked at in every answer of every check, and has
// one result.
type subject struct{ id, title, clauses string }

var subjects = []subject{
	{"H-31/status", "Each error has a canonical code and a message, and no details", "GEN-05 GEN-06 GEN-07"},
	{"H-31/strings", "Strings of answers have at most 128 bytes, or what their field allows", "GEN-13 NI-03 ID-02"},
	{"H-31/maps", "Maps of answers have at most 4 KiB", "GEN-14"},
	{"H-31/volumes", "Each volume of an answer has an id, a size that is none below zero, and always the same context", "GEN-16 CV-39 CV-42 CV-44 CV-31 LV-07"},
	{"H-31/secrets", "No answer and no error tells a secret", "CV-43 CP-19 GEN-20 GEN-21"},
	{"H-31/snapshots", "Each snapshot of an answer has an id, its source, its time, and no size below zero", "GEN-16 CS-13 CS-14 CS-18"},
	{"H-31/groups", "Each group snapshot has an id, its members, its time; members name their group; it is ready only when all are", "GEN-16 GEN-17 GV-06 GV-09 GV-10"},
	{"H-31/topology", "Keys and values of topology are well formed, of one prefix, and there only with the capability", "CV-31 CV-46 CV-47 CV-48 CV-49 NI-05 NI-06"},
	{"H-31/lists", "No page has more entries than were asked for, and each entry has what is required", "LV-03 LS-04 LH-05 LV-07 LV-08 CG-05 CG-06"},
	{"H-31/health", "Each health entry has its fields, and none is there twice", "GEN-16 LH-07 LH-08 GH-05 NH-05 NT-02 NT-03"},
	{"H-31/node", "What the node says of itself and of usage is whole", "NI-02 NI-03 NI-04 NG-05"},
	{"H-31/capacity", "No size of GetCapacity is below zero", "GC-05 GC-06"},
	{"H-31/metadata", "Blocks of metadata ascend, do not overlap, and have a constant kind", "SM-06 SM-07 SM-08 SM-09 SM-10 SM-11"},
}

// violation is one clause that one answer breaks.
type violation struct {
	clauses, text string
	warn          bool
	seenIn        string
	call          Call
}

// inspector looks at every answer of a run. Each kind of violation is told once,
// whatever number of checks meet it.
type inspector struct {
	facts    *Facts
	cfg      *Config
	redactor *redactor

	mu       sync.Mutex
	check    string
	answers  int
	found    map[string][]violation // by subject
	contexts map[string]map[string]string
	prefix   string // of topology keys
}

func newInspector(f *Facts, cfg *Config) *inspector {
	return &inspector{facts: f, cfg: cfg, redactor: newRedactor(cfg.Secrets), found: map[string][]violation{}, contexts: map[string]map[string]string{}}
}

func (i *inspector) enter(check string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.check = check
}

func (i *inspector) broken() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, list := range i.found {
		if slices.ContainsFunc(list, func(v violation) bool { return !v.warn }) {
			return true
		}
	}
	return false
}

// say notes a violation; the mutex is held.
func (i *inspector) say(subject, clauses string, call Call, format string, args ...any) {
	i.note(subject, violation{clauses: clauses, text: fmt.Sprintf(format, args...), call: call})
}

func (i *inspector) note(subject string, v violation) {
	v.warn = v.warn || onlyAdvice(strings.Fields(v.clauses))
	same := func(o violation) bool { return o.clauses == v.clauses && o.call.Method == v.call.Method }
	if list := i.found[subject]; len(list) < 10 && !slices.ContainsFunc(list, same) {
		v.seenIn, v.text = i.check, i.redactor.line(v.text)
		i.found[subject] = append(list, v)
	}
}

// failed looks at an error.
func (i *inspector) failed(method string, err error, took time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answers++
	s, call := status.Convert(err), Call{Method: method, Took: took}
	call.Code, call.Response = CodeName(s.Code()), i.redactor.line(s.Message())
	switch {
	case s.Code() > codes.Unauthenticated:
		i.say("H-31/status", "GEN-05", call, "%s: code %d is none of gRPC's", method, s.Code())
	case s.Code() == codes.Unknown:
		i.note("H-31/status", violation{clauses: "GEN-05", warn: true, call: call, text: method + ": UNKNOWN says nothing to a CO: an error that is no gRPC status"})
	}
	if s.Message() == "" {
		i.say("H-31/status", "GEN-06", call, "%s: %s without a message", method, CodeName(s.Code()))
	}
	if len(s.Proto().GetDetails()) > 0 {
		i.say("H-31/status", "GEN-07", call, "%s: %s with details", method, CodeName(s.Code()))
	}
	i.secrets(method+"'s error", s.Message(), call)
}

func (i *inspector) secrets(where, text string, call Call) {
	for k, v := range i.cfg.Secrets {
		if len(v) >= 4 && strings.Contains(text, v) {
			i.say("H-31/secrets", "GEN-20 CV-43 CP-19", call, "%s tells the secret %q", where, k)
		}
	}
}

// answered looks at an answer.
func (i *inspector) answered(req, resp proto.Message) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answers++
	v := view{i, Name(req), req, resp}
	v.sizes(resp.ProtoReflect())
	v.content()
}

// results of all subjects.
func (i *inspector) results() []Result {
	i.mu.Lock()
	defer i.mu.Unlock()
	var all []Result
	for _, s := range subjects {
		r := Result{ID: s.id, Title: s.title, Clauses: strings.Fields(s.clauses), Verdict: Pass, Message: fmt.Sprintf("in %d answers", i.answers),
			Reproduce: i.cfg.Reproduce(s.id)}
		if i.answers == 0 {
			r.Verdict, r.Message = NotRun, "no call was made"
		}
		broken := map[string]bool{}
		for n, v := range i.found[s.id] {
			if n == 0 {
				r.Verdict, r.Message, r.Reproduce = Warn, "", i.cfg.Reproduce(v.seenIn)
			}
			if !v.warn {
				r.Verdict = Fail
			}
			r.Message += v.text + " (seen in " + v.seenIn + ")\n"
			for c := range strings.FieldsSeq(v.clauses) {
				broken[c] = true
			}
			if len(r.Calls) < lastCalls {
				r.Calls = append(r.Calls, v.call)
			}
		}
		r.Message, r.Broken = strings.TrimSpace(r.Message), slices.Sorted(maps.Keys(broken))
		all = append(all, r)
	}
	return all
}

// Subjects are what is looked at in every answer, as checks.
func Subjects() []Check {
	var all []Check
	for _, s := range subjects {
		all = append(all, Check{ID: s.id, Title: s.title, Clauses: s.clauses})
	}
	return all
}
