package check

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	stripped  = "***stripped***"
	longest   = 300  // bytes of a string that a report shows
	longestIn = 4000 // bytes of a message that a report shows
)

// redactor makes text of messages, without what is secret in them.
type redactor struct{ values []string }

func newRedactor(secrets map[string]string) *redactor {
	r := &redactor{}
	for _, v := range secrets {
		if len(v) >= 4 { // shorter ones are in every other word
			r.values = append(r.values, v)
		}
	}
	return r
}

// text is a message for people.
func (r *redactor) text(m proto.Message) string {
	if m == nil || !m.ProtoReflect().IsValid() {
		return ""
	}
	c := proto.Clone(m)
	redact(c.ProtoReflect())
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(c)
	if err != nil {
		return "(not to be shown: " + err.Error() + ")"
	}
	return r.line(string(b))
}

// line is a text of the driver's without known secrets.
func (r *redactor) line(s string) string {
	for _, v := range r.values {
		s = strings.ReplaceAll(s, v, stripped)
	}
	if len(s) > longestIn {
		s = fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:longestIn], ""), len(s))
	}
	return printable(s)
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// redact takes out what csi_secret marks, mount_flags, and tokens of service
// accounts in contexts; and shortens what nobody reads to its end.
func redact(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			redactMap(f, v.Map())
		case f.IsList():
			redactList(f, v.List())
		case f.Message() != nil:
			redact(v.Message())
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(shorten(v.String())))
		}
		return true
	})
}

func redactMap(f protoreflect.FieldDescriptor, m protoreflect.Map) {
	if f.MapValue().Kind() != protoreflect.StringKind {
		return
	}
	secret, _ := proto.GetExtension(f.Options(), csi.E_CsiSecret).(bool)
	type pair struct {
		k protoreflect.MapKey
		v string
	}
	var pairs []pair
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		pairs = append(pairs, pair{k, v.String()})
		return true
	})
	for _, p := range pairs {
		m.Clear(p.k)
		v := shorten(p.v)
		if secret || strings.HasSuffix(p.k.String(), "serviceAccount.tokens") {
			v = stripped
		}
		m.Set(protoreflect.ValueOfString(shorten(p.k.String())).MapKey(), protoreflect.ValueOfString(v))
	}
}

func redactList(f protoreflect.FieldDescriptor, l protoreflect.List) {
	for i := range l.Len() {
		switch {
		case f.Message() != nil:
			redact(l.Get(i).Message())
		case f.Name() == "mount_flags":
			l.Set(i, protoreflect.ValueOfString(stripped))
		case f.Kind() == protoreflect.StringKind:
			l.Set(i, protoreflect.ValueOfString(shorten(l.Get(i).String())))
		}
	}
}

func shorten(s string) string {
	if len(s) <= longest {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:longest/3], ""), len(s))
}
