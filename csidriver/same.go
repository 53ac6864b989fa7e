package csidriver

import (
	"bytes"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// sameAsked tells whether two requests ask for the same, so that the later may
// share the result of the earlier. Secrets and service account tokens are not
// compared: a CO that retries may have new ones.
func sameAsked(a, b any) bool {
	x, ok := a.(asked)
	y, ok2 := b.(asked)
	return ok && ok2 && sameMessage(x.message.ProtoReflect(), y.message.ProtoReflect())
}

// sameToTheLetter compares secrets and tokens, too.
func sameToTheLetter(a, b any) bool {
	x, ok := a.(asked)
	y, ok2 := b.(asked)
	return ok && ok2 && proto.Equal(x.message, y.message)
}

func sameMessage(a, b protoreflect.Message) bool {
	if a.Descriptor() != b.Descriptor() || a.IsValid() != b.IsValid() || !bytes.Equal(a.GetUnknown(), b.GetUnknown()) {
		return false
	}
	fds := a.Descriptor().Fields()
	for i := range fds.Len() {
		fd := fds.Get(i)
		if csiSecret(fd) {
			continue
		}
		if a.Has(fd) != b.Has(fd) || a.Has(fd) && !sameField(fd, a.Get(fd), b.Get(fd)) {
			return false
		}
	}
	return true
}

func sameField(fd protoreflect.FieldDescriptor, a, b protoreflect.Value) bool {
	switch {
	case fd.IsMap():
		return sameMap(a.Map(), b.Map())
	case fd.IsList():
		return sameList(fd, a.List(), b.List())
	default:
		return sameValue(fd, a, b)
	}
}

// sameMap compares maps of strings, which all maps of CSI are.
func sameMap(a, b protoreflect.Map) bool {
	return coveredBy(a, b) && coveredBy(b, a)
}

func coveredBy(a, b protoreflect.Map) bool {
	same := true
	a.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		same = k.String() == pbconv.TokensKey || b.Has(k) && b.Get(k).String() == v.String()
		return same
	})
	return same
}

func sameList(fd protoreflect.FieldDescriptor, a, b protoreflect.List) bool {
	if a.Len() != b.Len() {
		return false
	}
	for i := range a.Len() {
		if !sameValue(fd, a.Get(i), b.Get(i)) {
			return false
		}
	}
	return true
}

func sameValue(fd protoreflect.FieldDescriptor, a, b protoreflect.Value) bool {
	if fd.Message() != nil {
		return sameMessage(a.Message(), b.Message())
	}
	return a.Equal(b)
}
