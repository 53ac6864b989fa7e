package mutants

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/internal/csiclient"
)

// Script talks to a driver and notes what comes back, in sections that need nothing
// of each other.
type Script struct {
	base Base
	dir  string // of target and staging paths, the driver's state below it
	log  syncBuffer
	now  Mutant // as it runs

	d    *Driver
	conn *grpc.ClientConn

	ctx   context.Context //nolint:containedctx // of the section that runs
	lines []string
	times map[string]string
}

// section is a part of the script.
type section struct {
	name string
	base []Base // that it is for
	run  func(*Script)
	// alone: it looks at what this process uses.
	alone bool
}

// script are all sections, the quick ones first.
func script() []section {
	mem, loop, each := []Base{Mem}, []Base{Loop}, []Base{Mem, Loop}
	return []section{
		{"identity", each, identitySection, false}, {"volumes", mem, volumeSection, false}, {"fields", mem, fieldSection, false},
		{"topology", mem, topologySection, false}, {"attach", mem, attachSection, false}, {"lists", mem, listSection, false},
		{"snapshots", mem, snapshotSection, false}, {"groups", mem, groupSection, false}, {"metadata", mem, metadataSection, false},
		{"health", mem, healthSection, false}, {"node", mem, nodeSection, false}, {"copies", mem, copySection, false},
		{"conditions", mem, conditionSection, false}, {"clients", mem, clientSection, false},
		{"pods", mem, podSection, false}, {"classes", mem, classSection, false},
		{"block", loop, blockSection, false}, {"disks", loop, diskSection, false}, {"restart", loop, restartSection, false},
		{"clients of disks", loop, diskClientSection, false}, {"pods of disks", loop, diskPodSection, false},
		{"at once", mem, atOnceSection, false}, {"given up", mem, givenUpSection, false},
		{"leaks", mem, leakSection, true},
	}
}

const canary = "CANARY-7f3a"

// Differs runs the script against the reference and against a mutant until an
// answer differs, and says which one: "" when none does.
func Differs(ctx context.Context, m Mutant, dir string, reference *Notes) (string, error) {
	for _, sec := range script() {
		if !slices.Contains(sec.base, m.Base) {
			continue
		}
		want, got, err := reference.both(ctx, sec, m, dir)
		if err != nil {
			return "", err
		}
		if d := firstDifference(want, got); d != "" {
			return sec.name + ": " + d, nil
		}
	}
	return "", nil
}

// Notes are what the reference answers, once for many mutants.
type Notes struct {
	mu    sync.Mutex
	m     map[string][]string
	alone sync.RWMutex
}

// both plays a section with the reference and with a mutant.
func (n *Notes) both(ctx context.Context, sec section, m Mutant, dir string) (want, got []string, err error) {
	if sec.alone {
		n.alone.Lock()
		defer n.alone.Unlock()
	} else {
		n.alone.RLock()
		defer n.alone.RUnlock()
	}
	if want, err = n.of(ctx, sec, m.Base, dir); err != nil {
		return nil, nil, err
	}
	got, err = play(ctx, sec, m, dir)
	return want, got, err
}

func (n *Notes) of(ctx context.Context, sec section, b Base, dir string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := b.String() + " " + sec.name
	if lines, ok := n.m[key]; ok {
		return lines, nil
	}
	lines, err := play(ctx, sec, Reference(b), dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sec.name, err)
	}
	again, err := play(ctx, sec, Reference(b), dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sec.name, err)
	}
	if d := firstDifference(lines, again); d != "" {
		return nil, fmt.Errorf("the reference is not the same twice: %s: %s", sec.name, d)
	}
	if n.m == nil {
		n.m = make(map[string][]string)
	}
	n.m[key] = lines
	return lines, nil
}

func firstDifference(want, got []string) string {
	for i := range max(len(want), len(got)) {
		w, g := "nothing", "nothing"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			return fmt.Sprintf("%s, the reference has %s", g, w)
		}
	}
	return ""
}

// play runs a section against a driver of its own.
func play(ctx context.Context, sec section, m Mutant, dir string) (lines []string, err error) {
	dir, err = os.MkdirTemp(dir, "m")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s := &Script{base: m.Base, dir: dir, now: m, ctx: ctx, times: make(map[string]string)}
	if err := s.start(); err != nil {
		return []string{"it does not start"}, Tidy(dir) // that is a difference too
	}
	sec.run(s)
	s.host()
	return s.lines, errors.Join(s.stop(), Tidy(dir))
}

func (s *Script) start() error {
	if err := os.MkdirAll(filepath.Join(s.dir, "driver"), 0o750); err != nil {
		return err
	}
	endpoint := "unix://" + s.dir + "/csi.sock"
	d, err := Start(s.ctx, s.now, Options{Endpoint: endpoint, Dir: filepath.Join(s.dir, "driver"), Out: &s.log})
	if err != nil {
		return err
	}
	s.d = d
	if s.conn, err = csiclient.Dial(endpoint); err != nil {
		return err
	}
	// One that never gets ready is one that differs.
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	s.note("ready", nil, csiclient.WaitReady(ctx, s.conn))
	return nil
}

func (s *Script) stop() error {
	err := s.conn.Close()
	s.d.Stop() //nolint:errcheck,gosec // what a mutant cannot end is cut
	return err
}

// syncBuffer is a log.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var (
	timestamps = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)
	spaces     = regexp.MustCompile(`\s+`)
	figures    = regexp.MustCompile(`"(available|used)": ?"\d+"`) // of a disk that others use too
	requestID  = regexp.MustCompile(`\(request [^)]*\)`)
)

// note keeps an answer, with what differs from run to run made equal.
func (s *Script) note(label string, resp proto.Message, err error) {
	if err != nil {
		st := status.Convert(err)
		text := "message"
		if st.Message() == "" {
			text = "no message"
		}
		if strings.Contains(st.Message(), canary) {
			text = "a message with a secret"
		}
		s.line(label, fmt.Sprintf("%d %s %d details", st.Code(), text, len(st.Details())))
		return
	}
	if resp == nil {
		s.line(label, "OK")
		return
	}
	s.line(label, "OK "+spaces.ReplaceAllString(protojson.Format(resp), " ")+unknownOf(resp))
}

// unknownOf tells of fields that are not of this version of CSI.
func unknownOf(m proto.Message) string {
	if r, ok := m.(*csi.ValidateVolumeCapabilitiesResponse); ok && len(r.GetConfirmed().ProtoReflect().GetUnknown()) > 0 {
		return " and what is unknown"
	}
	return ""
}

func (s *Script) line(label, text string) {
	text = strings.ReplaceAll(text, s.dir, "$DIR")
	text = figures.ReplaceAllString(text, "$1")
	text = requestID.ReplaceAllString(text, "")
	text = timestamps.ReplaceAllStringFunc(text, func(t string) string {
		if s.times[t] == "" {
			s.times[t] = fmt.Sprintf("time-%d", len(s.times)+1)
		}
		return s.times[t]
	})
	s.lines = append(s.lines, strings.ReplaceAll(label, s.dir, "$DIR")+": "+text)
}

func (s *Script) identity() csi.IdentityClient       { return csi.NewIdentityClient(s.conn) }
func (s *Script) controller() csi.ControllerClient   { return csi.NewControllerClient(s.conn) }
func (s *Script) group() csi.GroupControllerClient   { return csi.NewGroupControllerClient(s.conn) }
func (s *Script) node() csi.NodeClient               { return csi.NewNodeClient(s.conn) }
func (s *Script) blocks() csi.SnapshotMetadataClient { return csi.NewSnapshotMetadataClient(s.conn) }

// each calls a client's method with several requests.
func each[Q any, R proto.Message](s *Script, label string, call func(context.Context, Q, ...grpc.CallOption) (R, error), requests ...Q) {
	for i, q := range requests {
		ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		resp, err := call(ctx, q)
		cancel()
		s.note(fmt.Sprintf("%s %d", label, i+1), resp, err)
	}
}

// volume makes one, or goes on without.
func (s *Script) volume(name string, capability *csi.VolumeCapability) string {
	resp, err := s.controller().CreateVolume(s.ctx, &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{capability}, Secrets: secretsForTest(),
		CapacityRange: &csi.CapacityRange{RequiredBytes: 64 << 20},
	})
	s.note("create "+name, resp, err)
	return resp.GetVolume().GetVolumeId()
}

func secretsForTest() map[string]string { return map[string]string{"password": canary} }
