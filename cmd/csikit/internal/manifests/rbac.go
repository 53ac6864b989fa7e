package manifests

// rbac are the accounts of the pods, and what each sidecar may do: a role for each,
// so that one is taken away with its sidecar.
func (w *writer) rbac() []object {
	all := []object{w.account("node")}
	owner := "node"
	if w.layout == split {
		owner = "controller"
		if w.f.hasController() {
			all = append(all, w.account(owner))
		}
	}
	for _, s := range w.sidecars() {
		name := w.base + "-" + s.name
		all = append(all, w.role("ClusterRole", name, s.cluster), w.binding("ClusterRole", name, owner))
		if len(s.namespaced) > 0 {
			all = append(all, w.role("Role", name, s.namespaced), w.binding("Role", name, owner))
		}
	}
	return all
}

func (w *writer) account(half string) object {
	return object{{"apiVersion", "v1"}, {"kind", "ServiceAccount"}, {"metadata", w.meta(w.base+"-"+half, true)}}
}

func (w *writer) role(kind, name string, rules []rule) object {
	var l list
	for _, r := range rules {
		l = append(l, object{{"apiGroups", []string{r.group}}, {"resources", r.resources}, {"verbs", r.verbs}})
	}
	return object{
		{"apiVersion", "rbac.authorization.k8s.io/v1"},
		{"kind", kind},
		{"metadata", w.meta(name, kind == "Role")},
		{"rules", l},
	}
}

func (w *writer) binding(kind, name, half string) object {
	return object{
		{"apiVersion", "rbac.authorization.k8s.io/v1"},
		{"kind", kind + "Binding"},
		{"metadata", w.meta(name, kind == "Role")},
		{"roleRef", object{{"apiGroup", "rbac.authorization.k8s.io"}, {"kind", kind}, {"name", name}}},
		{"subjects", list{object{{"kind", "ServiceAccount"}, {"name", w.base + "-" + half}, {"namespace", w.o.Namespace}}}},
	}
}
