package mutants

import (
	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// codesOfCreate are wrong codes of CreateVolume.
func codesOfCreate() []Mutant {
	type q = *csi.CreateVolumeRequest
	conflict := func(differ func(first, second q) bool, to codes.Code) func(*Rig) {
		return conflictCode(createName, differ, codes.AlreadyExists, to)
	}
	fromSnapshot := func(r q) bool { return r.GetVolumeContentSource().GetSnapshot() != nil }
	crossed := func(r q) bool {
		return r.GetCapacityRange().GetLimitBytes() > 0 && r.GetCapacityRange().GetRequiredBytes() > r.GetCapacityRange().GetLimitBytes()
	}
	return []Mutant{
		mutant(Code, "create-size-conflict-code", "CV-34", "a volume of another size exists: INTERNAL",
			conflict(func(a, b q) bool { return !proto.Equal(a.GetCapacityRange(), b.GetCapacityRange()) }, codes.Internal)),
		mutant(Code, "create-parameters-conflict-code", "CV-36", "a volume with other parameters exists: INVALID_ARGUMENT",
			conflict(func(a, b q) bool {
				return !sameMap(a.GetParameters(), b.GetParameters()) || !sameMap(a.GetMutableParameters(), b.GetMutableParameters())
			}, codes.InvalidArgument)),
		mutant(Code, "create-topology-conflict-code", "CV-37", "the volume exists elsewhere: RESOURCE_EXHAUSTED",
			conflict(func(a, b q) bool {
				return !proto.Equal(a.GetAccessibilityRequirements(), b.GetAccessibilityRequirements())
			}, codes.ResourceExhausted)),
		mutant(Code, "create-source-conflict-code", "CV-38", "a volume of another source exists: INVALID_ARGUMENT",
			conflict(func(a, b q) bool { return !proto.Equal(a.GetVolumeContentSource(), b.GetVolumeContentSource()) }, codes.InvalidArgument)),
		mutant(Code, "create-crossed-range-code", "CV-12", "required_bytes above limit_bytes: INTERNAL",
			codeWhen(crossed, codes.OutOfRange, codes.Internal)),
		mutant(Code, "create-no-snapshot-code", "CV-23", "the source snapshot is missing: INVALID_ARGUMENT",
			codeWhen(fromSnapshot, codes.NotFound, codes.InvalidArgument)),
		mutant(Code, "create-bad-mutable-code", "CV-18 GEN-09", "an unknown mutable parameter: FAILED_PRECONDITION",
			codeWhen(func(r q) bool { return len(r.GetMutableParameters()) > 0 }, codes.InvalidArgument, codes.FailedPrecondition)),
		mutant(Code, "create-nowhere-code", "CV-33", "no zone fits the topology asked for: INTERNAL",
			codeWhen(func(r q) bool { return r.GetAccessibilityRequirements() != nil }, codes.ResourceExhausted, codes.Internal)),
	}
}

func sameMap(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}
