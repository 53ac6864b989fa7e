// Package manifests writes what Kubernetes must be told of a CSI driver, from what
// the driver that runs says of itself: its capabilities, and the fields of the
// CSIDriver object in GetPluginInfo.manifest.
package manifests
