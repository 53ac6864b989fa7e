package csidriver

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	redacted = "[redacted]"
	// serviceAccountTokens is the key under which kubelet puts tokens into
	// volume_context, which CSI does not mark as secret.
	serviceAccountTokens = "csi.storage.k8s.io/serviceAccount.tokens"
	// minSecret is the shortest value that is taken out of free text: less is no
	// secret, and half of the text would go.
	minSecret = 4
)

// redactor makes log attributes of protobuf messages without their secrets, and
// takes the secrets of a message out of a text. It reads messages in place.
type redactor struct {
	plans sync.Map // protoreflect.MessageDescriptor -> []field
}

// field is what a message type says about one of its fields, looked up once.
type field struct {
	protoreflect.FieldDescriptor
	name   string
	kind   protoreflect.Kind
	isMap  bool
	isList bool
	secret bool // csi_secret, or mount_flags, which may hold credentials
	// Go's own field of a map[string]string, or -1: protoreflect boxes each key
	// and each value of a map.
	index int
}

func (r *redactor) plan(m protoreflect.Message) []field {
	d := m.Descriptor()
	if p, ok := r.plans.Load(d); ok {
		return p.([]field)
	}
	fds := d.Fields()
	p := make([]field, fds.Len())
	for i := range p {
		fd := fds.Get(i)
		p[i] = field{fd, string(fd.Name()), fd.Kind(), fd.IsMap(), fd.IsList(), isSecret(fd), -1}
		if p[i].isMap {
			p[i].index = goField(m.Interface(), p[i].name)
		}
	}
	r.plans.Store(d, p)
	return p
}

func isSecret(fd protoreflect.FieldDescriptor) bool {
	if fd.Name() == "mount_flags" {
		return true
	}
	marked, _ := proto.GetExtension(fd.Options(), csi.E_CsiSecret).(bool)
	return marked
}

// goField finds the field of a generated struct in which a map[string]string
// lies; -1 when there is none.
func goField(m proto.Message, name string) int {
	t := reflect.TypeOf(m)
	if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return -1
	}
	for i := range t.Elem().NumField() {
		f := t.Elem().Field(i)
		if f.Type == reflect.TypeFor[map[string]string]() && slices.Contains(strings.Split(f.Tag.Get("protobuf"), ","), "name="+name) {
			return i
		}
	}
	return -1
}

// attr is m as a log attribute. Fields that this version of CSI does not know are
// left out: nobody knows what they hold.
func (r *redactor) attr(key string, m proto.Message) slog.Attr {
	return slog.Attr{Key: key, Value: r.message(m.ProtoReflect())}
}

func (r *redactor) message(m protoreflect.Message) slog.Value {
	p := r.plan(m)
	attrs := make([]slog.Attr, 0, len(p))
	for i := range p {
		f := &p[i]
		if m.Has(f.FieldDescriptor) {
			attrs = append(attrs, slog.Attr{Key: f.name, Value: r.field(m, f)})
		}
	}
	return group(attrs)
}

// group is a group that handlers do not leave out when it is empty.
func group(attrs []slog.Attr) slog.Value {
	if len(attrs) == 0 {
		return slog.StringValue("{}")
	}
	return slog.GroupValue(attrs...)
}

func (r *redactor) field(m protoreflect.Message, f *field) slog.Value {
	switch {
	case f.isMap && f.index >= 0:
		return stringMap(f, goMap(m, f.index))
	case f.isMap:
		return r.anyMap(f, m.Get(f.FieldDescriptor).Map())
	case f.isList:
		list := m.Get(f.FieldDescriptor).List()
		attrs := make([]slog.Attr, list.Len())
		for i := range attrs {
			attrs[i] = slog.Attr{Key: strconv.Itoa(i), Value: r.value(f.FieldDescriptor, f.kind, f.secret, list.Get(i))}
		}
		return group(attrs)
	default:
		return r.value(f.FieldDescriptor, f.kind, f.secret, m.Get(f.FieldDescriptor))
	}
}

// goMap is the map in Go's own field of a message.
func goMap(m protoreflect.Message, index int) map[string]string {
	v := reflect.ValueOf(m.Interface()).Elem().Field(index).Interface()
	return v.(map[string]string) //nolint:errcheck // goField has looked
}

// stringMap sorts keys and not attributes: that is code which every driver has.
func stringMap(f *field, m map[string]string) slog.Value {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	attrs := make([]slog.Attr, len(keys))
	for i, k := range keys {
		text := redacted
		if !f.secret && k != serviceAccountTokens {
			text = clip(m[k], maxLogged)
		}
		attrs[i] = slog.String(clip(k, maxLogged), text)
	}
	return group(attrs)
}

func (r *redactor) anyMap(f *field, m protoreflect.Map) slog.Value {
	values, fd := make(map[string]slog.Value, m.Len()), f.MapValue()
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		values[k.String()] = r.value(fd, fd.Kind(), f.secret || k.String() == serviceAccountTokens, v)
		return true
	})
	attrs := make([]slog.Attr, 0, len(values))
	for _, k := range slices.Sorted(maps.Keys(values)) {
		attrs = append(attrs, slog.Attr{Key: clip(k, maxLogged), Value: values[k]})
	}
	return group(attrs)
}

func (r *redactor) value(fd protoreflect.FieldDescriptor, kind protoreflect.Kind, secret bool, v protoreflect.Value) slog.Value {
	if secret {
		return slog.StringValue(redacted)
	}
	switch kind {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return r.message(v.Message())
	case protoreflect.StringKind:
		return slog.StringValue(clip(v.String(), maxLogged))
	case protoreflect.BytesKind:
		return slog.StringValue(fmt.Sprintf("<%d bytes>", len(v.Bytes())))
	case protoreflect.EnumKind:
		if e := fd.Enum().Values().ByNumber(v.Enum()); e != nil {
			return slog.StringValue(string(e.Name()))
		}
		return slog.Int64Value(int64(v.Enum()))
	default:
		return slog.StringValue(v.String())
	}
}

// scrub takes every secret of a request out of a text that somebody else wrote:
// the error of a handler that repeats what a tool printed, the value of a panic.
func (r *redactor) scrub(req any, text string) string {
	m, ok := req.(proto.Message)
	if !ok || text == "" {
		return text
	}
	var found []string
	r.secrets(m.ProtoReflect(), func(s string) { found = appendForms(found, s) })
	found = slices.DeleteFunc(found, func(s string) bool { return !strings.Contains(text, s) })
	if len(found) == 0 {
		return text
	}
	// The longest first: one secret may be a part of another.
	slices.SortFunc(found, func(x, y string) int { return len(y) - len(x) })
	pairs := make([]string, 0, 2*len(found))
	for _, s := range found {
		pairs = append(pairs, s, redacted)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// cleaner is scrub for the texts of a backend that are no errors.
func (d *Driver) cleaner(req proto.Message) func(string) string {
	return func(text string) string { return d.server.redact.scrub(req, text) }
}

// secrets calls yield with every secret string in m.
func (r *redactor) secrets(m protoreflect.Message, yield func(string)) {
	for _, f := range r.plan(m) {
		if !m.Has(f.FieldDescriptor) {
			continue
		}
		v := m.Get(f.FieldDescriptor)
		switch {
		case f.isMap:
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				r.secretsOf(f.MapValue(), f.secret || k.String() == serviceAccountTokens, v, yield)
				return true
			})
		case f.isList:
			for i := range v.List().Len() {
				r.secretsOf(f.FieldDescriptor, f.secret, v.List().Get(i), yield)
			}
		default:
			r.secretsOf(f.FieldDescriptor, f.secret, v, yield)
		}
	}
}

func (r *redactor) secretsOf(fd protoreflect.FieldDescriptor, secret bool, v protoreflect.Value, yield func(string)) {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		r.secrets(v.Message(), yield)
	case protoreflect.StringKind:
		if secret {
			yield(v.String())
		}
	}
}

// appendForms adds the shapes in which a secret may turn up in a text: whole,
// quoted, one line of several, the value of an option, the token inside the JSON
// of kubelet.
func appendForms(forms []string, secret string) []string {
	add := func(s string) {
		if s = strings.TrimSpace(s); len(s) >= minSecret && !plainOption[s] && !slices.Contains(forms, s) {
			forms = append(forms, s)
		}
	}
	add(secret)
	quoted := strconv.Quote(secret)
	add(quoted[1 : len(quoted)-1])
	for line := range strings.Lines(secret) {
		add(line)
	}
	for option := range strings.SplitSeq(secret, ",") {
		if _, value, ok := strings.Cut(option, "="); ok {
			add(option)
			add(strings.Trim(value, `"`))
		}
	}
	var tokens map[string]struct{ Token string }
	if strings.HasPrefix(secret, "{") && json.Unmarshal([]byte(secret), &tokens) == nil {
		for _, t := range tokens {
			add(t.Token)
		}
	}
	return forms
}

// plainOption are mount options that are words of the kernel and no secret:
// an error that names one may keep it.
var plainOption = map[string]bool{
	"bind": true, "rbind": true, "move": true, "loop": true, "remount": true, "defaults": true, "auto": true, "noauto": true,
	"sync": true, "async": true, "exec": true, "noexec": true, "suid": true, "nosuid": true, "nodev": true,
	"atime": true, "noatime": true, "diratime": true, "nodiratime": true, "relatime": true, "norelatime": true, "strictatime": true,
	"lazytime": true, "nolazytime": true, "dirsync": true, "mand": true, "nomand": true, "discard": true, "nodiscard": true,
	"nouuid": true, "norecovery": true, "noload": true, "nofail": true, "_netdev": true, "nosymfollow": true,
	"hard": true, "soft": true, "nolock": true, "private": true, "shared": true, "slave": true, "unbindable": true,
}
