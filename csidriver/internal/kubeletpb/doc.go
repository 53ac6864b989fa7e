// Package kubeletpb is kubelet's plug-in registration API, v1, as a plug-in
// serves it: four messages and two methods, encoded by hand.
//
// The generated package, k8s.io/kubelet/pkg/apis/pluginregistration/v1, would
// bring the module graph of Kubernetes into every driver's. A generated copy would
// be registered under the same names as the original, and protobuf panics at the
// start of a program that has both. Field numbers are those of api.proto; a test
// compares with what protobuf itself makes of them.
package kubeletpb
