package nfs

import "maps"

// tasks are what a worker can do.
func tasks() map[string]task {
	all := map[string]task{}
	maps.Copy(all, nodeTasks())
	maps.Copy(all, controllerTasks())
	return all
}
