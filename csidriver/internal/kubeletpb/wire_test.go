package kubeletpb

import (
	"bytes"
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/csikit/csikit/internal/deptest"
)

// api is pkg/apis/pluginregistration/v1/api.proto of k8s.io/kubelet.
const api = `
name: "api.proto" package: "pluginregistration" syntax: "proto3"
message_type { name: "PluginInfo"
  field { name: "type" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "name" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "endpoint" number: 3 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "supported_versions" number: 4 label: LABEL_REPEATED type: TYPE_STRING } }
message_type { name: "RegistrationStatus"
  field { name: "plugin_registered" number: 1 label: LABEL_OPTIONAL type: TYPE_BOOL }
  field { name: "error" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING } }
message_type { name: "RegistrationStatusResponse" }
message_type { name: "InfoRequest" }
`

// theirs is a message of the API with the given text, as protobuf encodes it.
func theirs(t *testing.T, name, text string) []byte {
	t.Helper()
	var fd descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(api), &fd); err != nil {
		t.Fatal(err)
	}
	file, err := protodesc.NewFile(&fd, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(file.Messages().ByName(protoreflect.Name(name)))
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWire(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		ours       any
	}{
		{"InfoRequest", ``, &InfoRequest{}},
		{"PluginInfo", `type: "CSIPlugin" name: "a.b" endpoint: "/x/csi.sock" supported_versions: "1.0.0" supported_versions: ""`,
			&PluginInfo{Type: CSIPlugin, Name: "a.b", Endpoint: "/x/csi.sock", SupportedVersions: []string{"1.0.0", ""}}},
		{"PluginInfo", ``, &PluginInfo{}},
		{"RegistrationStatus", `plugin_registered: true`, &RegistrationStatus{PluginRegistered: true}},
		{"RegistrationStatus", `error: "no such driver"`, &RegistrationStatus{Error: "no such driver"}},
		{"RegistrationStatusResponse", ``, &RegistrationStatusResponse{}},
	} {
		want := theirs(t, tt.name, tt.text)
		got, err := Codec{}.Marshal(tt.ours)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s {%s}: %x, %v; protobuf has %x", tt.name, tt.text, got, err, want)
		}
		back := reflect.New(reflect.TypeOf(tt.ours).Elem()).Interface()
		if err := (Codec{}).Unmarshal(want, back); err != nil || !reflect.DeepEqual(back, tt.ours) {
			t.Errorf("%s {%s}: decoded %+v, %v", tt.name, tt.text, back, err)
		}
	}
}

// TestForeign: fields of later versions are skipped, garbage is an error, and so is
// a message of another service.
func TestForeign(t *testing.T) {
	var s RegistrationStatus
	// Fields 9 (varint) and 2 with a number instead of text.
	if err := (Codec{}).Unmarshal([]byte{9 << 3, 1, 2 << 3, 7, 1 << 3, 1}, &s); err != nil || !s.PluginRegistered || s.Error != "" {
		t.Errorf("unknown fields: %+v, %v", s, err)
	}
	for _, b := range [][]byte{{0xff}, {2<<3 | 2, 5, 'a'}, {1 << 3}} {
		if err := (Codec{}).Unmarshal(b, &s); err == nil {
			t.Errorf("%x was decoded", b)
		}
	}
	if _, err := (Codec{}).Marshal(7); err == nil {
		t.Error("a number was encoded")
	}
	if err := (Codec{}).Unmarshal(nil, new(int)); err == nil {
		t.Error("a number was decoded")
	}
}

func TestDependencies(t *testing.T) {
	deptest.Never(t, map[string]string{
		"k8s.io": "the API of kubelet is encoded by hand so that nothing of Kubernetes comes along",
		"google.golang.org/protobuf/types/dynamicpb": "for the test that compares",
	})
}
