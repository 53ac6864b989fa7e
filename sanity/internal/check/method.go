package check

import (
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Methods are all RPCs of the spec.
func Methods() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	services := csi.File_csi_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			all = append(all, methods.Get(j))
		}
	}
	return all
}

// MethodOf is the RPC that takes a request.
func MethodOf(req proto.Message) protoreflect.MethodDescriptor {
	name := req.ProtoReflect().Descriptor().FullName()
	for _, m := range Methods() {
		if m.Input().FullName() == name {
			return m
		}
	}
	return nil
}

// Path is the method as gRPC calls it.
func Path(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// NewMessage makes an empty message of a type.
func NewMessage(d protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return nil // not of the spec
	}
	return t.New().Interface()
}

// onNode tells whether a service is that of the node.
func onNode(m protoreflect.MethodDescriptor) bool { return m.Parent().Name() == "Node" }

// Name is the RPC that a request is of.
func Name(req proto.Message) string {
	return strings.TrimSuffix(string(req.ProtoReflect().Descriptor().Name()), "Request")
}
