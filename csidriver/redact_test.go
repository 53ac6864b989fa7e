package csidriver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/structpb"
)

// printed is what a handler of the standard library makes of a redacted message.
func printed(r *redactor, m proto.Message, json bool) string {
	var b strings.Builder
	bare := &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}}
	var h slog.Handler = slog.NewTextHandler(&b, bare)
	if json {
		h = slog.NewJSONHandler(&b, bare)
	}
	slog.New(h).LogAttrs(context.Background(), slog.LevelInfo, "", r.attr("q", m))
	return strings.TrimSpace(b.String())
}

func TestRedactedText(t *testing.T) {
	m := &csi.NodeStageVolumeRequest{
		VolumeId:          "pvc \"1\"\n",
		StagingTargetPath: strings.Repeat("p", 300),
		Secrets:           map[string]string{"password": "canary", "b": "canary"},
		VolumeContext:     map[string]string{"pool": "fast", serviceAccountTokens: "canary"},
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "xfs", MountFlags: []string{"canary", "canary"}}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		},
	}
	// A field that this version does not know, with a secret.
	m.ProtoReflect().SetUnknown(protoreflect.RawFields("\xfa\x7f\x06canary"))
	var r redactor
	want := `q.volume_id="pvc \"1\"\n" q.staging_target_path="` + strings.Repeat("p", 256) + `... (44 bytes more)"` +
		` q.volume_capability.mount.fs_type=xfs q.volume_capability.mount.mount_flags.0=[redacted] q.volume_capability.mount.mount_flags.1=[redacted]` +
		` q.volume_capability.access_mode.mode=SINGLE_NODE_WRITER q.secrets.b=[redacted] q.secrets.password=[redacted]` +
		` q.volume_context.csi.storage.k8s.io/serviceAccount.tokens=[redacted] q.volume_context.pool=fast`
	if got := printed(&r, m, false); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if m.Secrets["password"] != "canary" {
		t.Error("the request itself was changed")
	}
	m.VolumeCapability.AccessMode.Mode = 99
	if got := printed(&r, m, false); !strings.Contains(got, "access_mode.mode=99") {
		t.Errorf("unknown mode: %s", got)
	}
}

// TestRedactedEmpty: a message in which nothing is set is shown.
func TestRedactedEmpty(t *testing.T) {
	var r redactor
	m := &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}}
	if got := printed(&r, m, true); got != `{"q":{"block":"{}"}}` {
		t.Error(got)
	}
	if got := printed(&r, &csi.ProbeRequest{}, false); got != "q={}" {
		t.Error(got)
	}
}

// TestRedactedForeign: the message of a service beside CSI's, with a map whose
// values are messages.
func TestRedactedForeign(t *testing.T) {
	var r redactor
	m, err := structpb.NewStruct(map[string]any{"b": "x", "a": []any{true, 1.5}})
	if err != nil {
		t.Fatal(err)
	}
	m.Fields[serviceAccountTokens] = structpb.NewStringValue("canary")
	const want = `{"q":{"fields":{"a":{"list_value":{"values":{"0":{"bool_value":"true"},"1":{"number_value":"1.5"}}}},"b":{"string_value":"x"},"csi.storage.k8s.io/serviceAccount.tokens":"[redacted]"}}}`
	if got := printed(&r, m, true); got != want {
		t.Error(got)
	}
}

// fill puts canaries into everything of m that may hold a secret, and ordinary
// values elsewhere.
func fill(m protoreflect.Message, depth int) (canaries int) {
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		switch {
		case fd.IsMap() && fd.MapValue().Kind() == protoreflect.StringKind:
			mv := m.Mutable(fd).Map()
			key := serviceAccountTokens
			if isSecret(fd) {
				key = "password"
			}
			mv.Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString("canary-in-"+string(fd.Name())))
			canaries++
		case fd.IsList() && isSecret(fd):
			m.Mutable(fd).List().Append(protoreflect.ValueOfString("canary-in-flag"))
			m.Mutable(fd).List().Append(protoreflect.ValueOfString("password=canary-in-option"))
			canaries += 2
		case fd.IsList() && fd.Message() != nil && depth > 0:
			canaries += fill(m.Mutable(fd).List().AppendMutable().Message(), depth-1)
		case !fd.IsMap() && !fd.IsList() && fd.Message() != nil && depth > 0:
			canaries += fill(m.Mutable(fd).Message(), depth-1)
		case !fd.IsMap() && !fd.IsList() && fd.Kind() == protoreflect.StringKind:
			m.Set(fd, protoreflect.ValueOfString("plain"))
		}
	}
	return canaries
}

// TestNoMessageShowsSecrets: every message of CSI, every place in it.
func TestNoMessageShowsSecrets(t *testing.T) {
	var r redactor
	messages, canaries := 0, 0
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		if mt.Descriptor().ParentFile().Package() != "csi.v1" {
			return true
		}
		m := mt.New()
		n := fill(m, 4)
		messages, canaries = messages+1, canaries+n
		for _, json := range []bool{false, true} {
			if got := printed(&r, m.Interface(), json); strings.Contains(got, "canary") || strings.Count(got, redacted) != n {
				t.Errorf("%s, %d canaries: %s", mt.Descriptor().Name(), n, got)
			}
		}
		text := fmt.Sprint("plain text, ", m.Interface())
		if n > 0 && !strings.Contains(text, "canary") {
			t.Errorf("%s does not print itself: %s", mt.Descriptor().Name(), text)
		}
		if got := r.scrub(m.Interface(), text); strings.Contains(got, "canary") {
			t.Errorf("scrubbed %s: %s", mt.Descriptor().Name(), got)
		}
		return true
	})
	if messages < 70 || canaries < 60 {
		t.Errorf("looked at %d messages with %d canaries only", messages, canaries)
	}
}

// TestEverySecretFieldIsKnown: the spec marks what csikit hides.
func TestEverySecretFieldIsKnown(t *testing.T) {
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		d := mt.Descriptor()
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			if d.ParentFile().Package() == "csi.v1" && strings.Contains(string(fd.Name()), "secret") && !isSecret(fd) {
				t.Errorf("%s is not secret", fd.FullName())
			}
		}
		return true
	})
}

func TestScrub(t *testing.T) {
	var r redactor
	req := &csi.NodeStageVolumeRequest{
		Secrets: map[string]string{
			"password": "hunter22", "longer": "hunter22-and-more", "pin": "12", "quoted": `pa"ss\word`,
			"key": "-----BEGIN KEY-----\nAAAABBBB\nCCCCDDDD\n",
		},
		VolumeContext: map[string]string{
			"pool":               "fast-pool",
			serviceAccountTokens: `{"vault":{"token":"eyJhbGciOi.J9","expirationTimestamp":"2026"}}`,
		},
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{
			MountFlags: []string{"noatime", "credentials=/etc/x,password=opensesame", `context="system_u:c1,c2"`},
		}}},
	}
	tests := []struct{ in, want string }{
		{"nothing here", "nothing here"},
		{"pool fast-pool, pin 12", "pool fast-pool, pin 12"},
		{"mount -o user:hunter22 failed", "mount -o user:[redacted] failed"},
		{"hunter22-and-more", redacted},
		{`bad password "pa\"ss\\word"`, `bad password "[redacted]"`},
		{"cannot read CCCCDDDD", "cannot read [redacted]"},
		{"token eyJhbGciOi.J9 refused", "token [redacted] refused"},
		{"unknown option noatime", "unknown option noatime"},
		{"unknown option password=opensesame", "unknown option [redacted]"},
		{"opensesame is wrong", "[redacted] is wrong"},
	}
	for _, tt := range tests {
		if got := r.scrub(req, tt.in); got != tt.want {
			t.Errorf("scrub(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	if got := r.scrub(nil, "text"); got != "text" {
		t.Errorf("without a request: %q", got)
	}
}

// TestCanary: a handler that shouts its request, in errors and panics, on a
// server that logs all it can.
func TestCanary(t *testing.T) {
	var log logBuffer
	shout := func(req proto.Message) error { return errors.New(fmt.Sprint(req)) }
	f := &fakeServices{
		stage: func(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
			switch r.GetVolumeId() {
			case "panic value":
				panic(r)
			case "panic text":
				panic(fmt.Sprintf("%#v %v", r.GetSecrets(), r))
			case "panic error":
				panic(shout(r))
			}
			return nil, shout(r)
		},
	}
	o := &ServerOptions{
		Logger: log.logger(slog.LevelDebug), LogRequests: true,
		Errors: func(_ context.Context, _ string, err error) error { return status.Error(9, err.Error()) },
	}
	conn, stop := serveFake(t, o, f)
	for _, id := range []string{"error", "panic value", "panic text", "panic error"} {
		req := new(csi.NodeStageVolumeRequest)
		if n := fill(req.ProtoReflect(), 4); n < 4 {
			t.Fatalf("%d canaries", n)
		}
		req.VolumeId = id
		_, err := csi.NewNodeClient(conn).NodeStageVolume(t.Context(), req, grpc.WaitForReady(true))
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: status %v", id, err)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if l := log.String(); strings.Contains(l, "canary") || len(log.lines(t, "panic in a handler")) != 3 || len(log.lines(t, "request")) != 4 {
		t.Errorf("log: %s", l)
	}
}
