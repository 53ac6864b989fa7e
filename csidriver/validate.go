package csidriver

import (
	"fmt"
	"path"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// Limits of the spec.
const (
	maxString = 128     // bytes of a string, unless its field says otherwise
	maxMap    = 4 << 10 // bytes of a map in an answer; requests may be longer (CO-08)
	maxFlags  = 4 << 10 // bytes of all mount_flags together
	maxPath   = 4095    // bytes of a path: what the kernel takes
	maxNodeID = 256     // bytes of a node_id
	maxLength = 63      // bytes of a driver's name, and of each part of a topology
	unlimited = 0
)

// required are the fields that the spec calls REQUIRED and whose absence is
// INVALID_ARGUMENT. NodePublishVolume's staging_target_path is not here: its
// absence has a code of its own. Nor are the snapshot_ids of a group and the
// mutable_parameters of ControllerModifyVolume: csi-sanity leaves them out (W-5).
var required = fields(
	"CreateVolumeRequest.name", "CreateVolumeRequest.volume_capabilities",
	"DeleteVolumeRequest.volume_id",
	"ValidateVolumeCapabilitiesRequest.volume_id", "ValidateVolumeCapabilitiesRequest.volume_capabilities",
	"ControllerGetVolumeRequest.volume_id",
	"ControllerPublishVolumeRequest.volume_id", "ControllerPublishVolumeRequest.node_id", "ControllerPublishVolumeRequest.volume_capability",
	"ControllerUnpublishVolumeRequest.volume_id",
	"ControllerGetVolumeHealthRequest.volume_id",
	"ControllerModifyVolumeRequest.volume_id",
	"CreateSnapshotRequest.name", "CreateSnapshotRequest.source_volume_id",
	"DeleteSnapshotRequest.snapshot_id", "GetSnapshotRequest.snapshot_id",
	"CreateVolumeGroupSnapshotRequest.name", "CreateVolumeGroupSnapshotRequest.source_volume_ids",
	"DeleteVolumeGroupSnapshotRequest.group_snapshot_id", "GetVolumeGroupSnapshotRequest.group_snapshot_id",
	"GetMetadataAllocatedRequest.snapshot_id",
	"GetMetadataDeltaRequest.base_snapshot_id", "GetMetadataDeltaRequest.target_snapshot_id",
	"ControllerExpandVolumeRequest.volume_id", "ControllerExpandVolumeRequest.capacity_range",
	"NodeStageVolumeRequest.volume_id", "NodeStageVolumeRequest.staging_target_path", "NodeStageVolumeRequest.volume_capability",
	"NodeUnstageVolumeRequest.volume_id", "NodeUnstageVolumeRequest.staging_target_path",
	"NodePublishVolumeRequest.volume_id", "NodePublishVolumeRequest.target_path", "NodePublishVolumeRequest.volume_capability",
	"NodeUnpublishVolumeRequest.volume_id", "NodeUnpublishVolumeRequest.target_path",
	"NodeGetVolumeStatsRequest.volume_id", "NodeGetVolumeStatsRequest.volume_path",
	"NodeGetVolumeHealthRequest.volume_id",
	"NodeExpandVolumeRequest.volume_id", "NodeExpandVolumeRequest.volume_path",
	"VolumeCapability.access_mode", "VolumeCapability.AccessMode.mode",
	"VolumeContentSource.SnapshotSource.snapshot_id", "VolumeContentSource.VolumeSource.volume_id",
)

// longStrings are the strings that the 128-byte rule does not hold for.
var longStrings = map[protoreflect.FullName]int{
	"csi.v1.NodeStageVolumeRequest.staging_target_path":       maxPath,
	"csi.v1.NodeUnstageVolumeRequest.staging_target_path":     maxPath,
	"csi.v1.NodePublishVolumeRequest.staging_target_path":     maxPath,
	"csi.v1.NodePublishVolumeRequest.target_path":             maxPath,
	"csi.v1.NodeUnpublishVolumeRequest.target_path":           maxPath,
	"csi.v1.NodeGetVolumeStatsRequest.volume_path":            maxPath,
	"csi.v1.NodeGetVolumeStatsRequest.staging_target_path":    maxPath,
	"csi.v1.NodeGetVolumeHealthRequest.volume_publish_path":   maxPath,
	"csi.v1.NodeGetVolumeHealthRequest.staging_target_path":   maxPath,
	"csi.v1.NodeExpandVolumeRequest.volume_path":              maxPath,
	"csi.v1.NodeExpandVolumeRequest.staging_target_path":      maxPath,
	"csi.v1.ControllerPublishVolumeRequest.node_id":           maxNodeID,
	"csi.v1.ControllerUnpublishVolumeRequest.node_id":         maxNodeID,
	"csi.v1.ListVolumesRequest.starting_token":                unlimited, // not ours, then stale: ABORTED
	"csi.v1.ControllerListVolumeHealthRequest.starting_token": unlimited,
	"csi.v1.ListSnapshotsRequest.starting_token":              unlimited,
	"csi.v1.VolumeCapability.MountVolume.mount_flags":         unlimited, // bounded together
}

// plainNames are strings in which control characters are banned.
var plainNames = fields("CreateVolumeRequest.name", "CreateSnapshotRequest.name", "CreateVolumeGroupSnapshotRequest.name")

// signed are the numbers of which a negative one has a code of its own.
var signed = fields("GetMetadataAllocatedRequest.starting_offset", "GetMetadataDeltaRequest.starting_offset")

func fields(list ...protoreflect.FullName) map[protoreflect.FullName]bool {
	set := make(map[protoreflect.FullName]bool, len(list))
	for _, f := range list {
		set["csi.v1."+f] = true
	}
	return set
}

// rule is what is checked of one field.
type rule struct {
	field    protoreflect.FieldDescriptor
	required bool
	limit    int // of a string's bytes; unlimited: none
	name     bool
	signed   bool
	secrets  bool
	sub      *plan // of the message in this field
}

// plan is what is checked of one message.
type plan struct {
	rules  []rule
	oneofs []protoreflect.OneofDescriptor // each must be set
}

// validator holds a plan for each request message, made from the descriptors of
// the spec once.
type validator map[protoreflect.FullName]*plan

func newValidator() validator {
	v := make(validator)
	services := csi.File_csi_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			v.plan(methods.Get(j).Input())
		}
	}
	return v
}

func (v validator) plan(md protoreflect.MessageDescriptor) *plan {
	if p, ok := v[md.FullName()]; ok {
		return p
	}
	p := new(plan)
	v[md.FullName()] = p
	for i := range md.Oneofs().Len() {
		p.oneofs = append(p.oneofs, md.Oneofs().Get(i))
	}
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		r := rule{
			field:    fd,
			required: required[fd.FullName()],
			limit:    maxString,
			name:     plainNames[fd.FullName()],
			signed:   signed[fd.FullName()],
			secrets:  csiSecret(fd),
		}
		if n, ok := longStrings[fd.FullName()]; ok {
			r.limit = n
		}
		if fd.Message() != nil && !fd.IsMap() {
			r.sub = v.plan(fd.Message())
		}
		p.rules = append(p.rules, r)
	}
	return p
}

// csiSecret reads the option by which the spec marks secrets.
func csiSecret(fd protoreflect.FieldDescriptor) bool {
	secret, _ := proto.GetExtension(fd.Options(), csi.E_CsiSecret).(bool)
	return secret
}

// check applies the rules that need nothing but the message: what is required,
// how long, not negative, free of control characters.
func (v validator) check(m proto.Message) error {
	r := m.ProtoReflect()
	p, ok := v[r.Descriptor().FullName()]
	if !ok {
		return nil
	}
	if broken := p.check(r); broken != nil {
		return invalid("%s %s", broken.field, broken.text)
	}
	return nil
}

// violation is a field that breaks a rule. Its path is put together on the way
// out, so that a good request costs no text.
type violation struct{ field, text string }

func (p *plan) check(m protoreflect.Message) *violation {
	for _, o := range p.oneofs {
		if m.WhichOneof(o) == nil {
			return &violation{string(o.Name()), "is required"}
		}
	}
	for i := range p.rules {
		r := &p.rules[i]
		if !m.Has(r.field) {
			if r.required {
				return r.broken("is required")
			}
			continue
		}
		if broken := r.check(m.Get(r.field)); broken != nil {
			return broken
		}
	}
	return nil
}

func (r *rule) broken(format string, args ...any) *violation {
	return &violation{string(r.field.Name()), fmt.Sprintf(format, args...)}
}

func (r *rule) check(v protoreflect.Value) *violation {
	switch {
	case r.field.IsMap():
		return r.checkMap(v.Map())
	case r.field.IsList():
		return r.checkList(v.List())
	default:
		return r.checkValue(v)
	}
}

func (r *rule) checkList(list protoreflect.List) *violation {
	for i := range list.Len() {
		if broken := r.checkValue(list.Get(i)); broken != nil {
			return broken
		}
	}
	return nil
}

func (r *rule) checkValue(v protoreflect.Value) *violation {
	switch r.field.Kind() {
	case protoreflect.StringKind:
		return r.checkString(v.String())
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		if v.Int() < 0 && !r.signed {
			return r.broken("is negative")
		}
	case protoreflect.MessageKind:
		if below := r.sub.check(v.Message()); below != nil {
			below.field = string(r.field.Name()) + "." + below.field
			return below
		}
	}
	return nil
}

func (r *rule) checkString(s string) *violation {
	switch {
	case r.limit != unlimited && len(s) > r.limit:
		return r.broken("is %d bytes long, %d are allowed", len(s), r.limit)
	case r.name && strings.ContainsFunc(s, banned):
		return r.broken("holds a control character")
	case strings.ContainsRune(s, 0):
		return r.broken("holds a NUL character")
	}
	return nil
}

// checkMap looks at secrets alone: what keys and values of other maps may be is
// said by the driver's Traits, and a CO adds long ones of its own.
func (r *rule) checkMap(m protoreflect.Map) *violation {
	if !r.secrets {
		return nil
	}
	ok := true
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		ok = secretKey(k.String())
		return ok
	})
	if !ok {
		return r.broken("has a key that is not of [A-Za-z0-9._-]")
	}
	return nil
}

// secretKey allows one '/' that the spec does not: Kubernetes sends
// csi.storage.k8s.io/serviceAccount.tokens.
func secretKey(k string) bool {
	if pbconv.IsCOKey(k) {
		_, k, _ = strings.Cut(k, "/")
	}
	return k != "" && !strings.ContainsFunc(k, func(r rune) bool {
		return !alphanumeric(r) && !strings.ContainsRune("._-", r)
	})
}

func alphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// banned are the characters that the spec bans from names: control characters
// other than tab, line feed and carriage return.
func banned(r rune) bool {
	switch r {
	case '\t', '\n', '\r':
		return false
	default:
		return r < 0x20 || r >= 0x7f && r <= 0x9f
	}
}

// absPath checks a path of a request and takes out what changes nothing: double
// and trailing slashes, "/./". ".." is refused, since what it means depends on
// links in the path.
func absPath(field, p string) (string, error) {
	switch {
	case !path.IsAbs(p):
		return "", invalid("%s is not an absolute path", field)
	case hasDotDot(p):
		return "", invalid("%s has a \"..\" in it", field)
	}
	clean := path.Clean(p)
	if clean == "/" {
		return "", invalid("%s is the root directory", field)
	}
	return clean, nil
}

func hasDotDot(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// optionalPath is absPath for a path that may be left out.
func optionalPath(field, p string) (string, error) {
	if p == "" {
		return "", nil
	}
	return absPath(field, p)
}

// servedPath is absPath for a path that names a volume which is there already.
// A relative one is an answer and not a complaint: no volume is there (W-4,
// csi-sanity asks for NOT_FOUND).
func servedPath(field, p, volumeID string) (string, error) {
	if !path.IsAbs(p) {
		return "", backends.VolumeNotFound(volumeID)
	}
	return absPath(field, p)
}
