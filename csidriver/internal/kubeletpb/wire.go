package kubeletpb

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// InfoRequest asks for PluginInfo. It has no fields.
type InfoRequest struct{}

// PluginInfo says what registers, and where it is served.
type PluginInfo struct {
	Type              string // CSIPlugin
	Name              string
	Endpoint          string // a Unix socket, as kubelet sees it
	SupportedVersions []string
}

// RegistrationStatus is what became of the registration.
type RegistrationStatus struct {
	PluginRegistered bool
	Error            string
}

// RegistrationStatusResponse has no fields.
type RegistrationStatusResponse struct{}

// CSIPlugin is PluginInfo.Type of CSI drivers.
const CSIPlugin = "CSIPlugin"

// Codec encodes the messages of this package, and nothing else.
type Codec struct{}

// Name is what gRPC calls the encoding.
func (Codec) Name() string { return "proto" }

// Marshal encodes v.
func (Codec) Marshal(v any) ([]byte, error) {
	switch m := v.(type) {
	case *InfoRequest, *RegistrationStatusResponse:
		return nil, nil
	case *PluginInfo:
		b := appendString(nil, 1, m.Type)
		b = appendString(b, 2, m.Name)
		b = appendString(b, 3, m.Endpoint)
		for _, s := range m.SupportedVersions {
			b = protowire.AppendString(protowire.AppendTag(b, 4, protowire.BytesType), s)
		}
		return b, nil
	case *RegistrationStatus:
		var b []byte
		if m.PluginRegistered {
			b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), 1)
		}
		return appendString(b, 2, m.Error), nil
	default:
		return nil, fmt.Errorf("kubeletpb: cannot encode %T", v)
	}
}

func appendString(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

// Unmarshal decodes into v, whose fields are unset. Unknown fields are skipped: a
// newer kubelet may send some. It keeps nothing of data.
func (Codec) Unmarshal(data []byte, v any) error {
	field := func(protowire.Number, protowire.Type, []byte) {}
	switch m := v.(type) {
	case *InfoRequest, *RegistrationStatusResponse:
	case *PluginInfo:
		field = m.field
	case *RegistrationStatus:
		field = m.field
	default:
		return fmt.Errorf("kubeletpb: cannot decode %T", v)
	}
	return each(data, field)
}

func (m *PluginInfo) field(n protowire.Number, t protowire.Type, value []byte) {
	if t != protowire.BytesType {
		return
	}
	switch s := text(value); n {
	case 1:
		m.Type = s
	case 2:
		m.Name = s
	case 3:
		m.Endpoint = s
	case 4:
		m.SupportedVersions = append(m.SupportedVersions, s)
	}
}

func (m *RegistrationStatus) field(n protowire.Number, t protowire.Type, value []byte) {
	switch {
	case n == 1 && t == protowire.VarintType:
		v, _ := protowire.ConsumeVarint(value) // each has looked at it
		m.PluginRegistered = v != 0
	case n == 2 && t == protowire.BytesType:
		m.Error = text(value)
	}
}

// text is the string of a field; what is no UTF-8 is shown as such.
func text(value []byte) string {
	b, _ := protowire.ConsumeBytes(value) // each has looked at it
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// each calls f with every field of a message, and its value as it is encoded.
func each(data []byte, f func(protowire.Number, protowire.Type, []byte)) error {
	for len(data) > 0 {
		n, t, tag := protowire.ConsumeTag(data)
		if tag < 0 {
			return errors.Join(errors.New("kubeletpb: no protobuf message"), protowire.ParseError(tag))
		}
		size := protowire.ConsumeFieldValue(n, t, data[tag:])
		if size < 0 {
			return errors.Join(errors.New("kubeletpb: no protobuf message"), protowire.ParseError(size))
		}
		f(n, t, data[tag:tag+size])
		data = data[tag+size:]
	}
	return nil
}
