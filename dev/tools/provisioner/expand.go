package main

import (
	"context"
	"encoding/json"
	"log"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// expandForever grants every growth of a claim: a folder has no size, so only the figures move,
// first the volume's capacity and then the claim's, as an external resizer does it.
func expandForever(ctx context.Context, client kubernetes.Interface) {
	factory := informers.NewSharedInformerFactory(client, time.Minute)
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	_, err := claims.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, now any) {
			if err := expand(ctx, client, now.(*core.PersistentVolumeClaim)); err != nil {
				log.Printf("expand: %v", err) // the resync tries again
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	factory.Start(ctx.Done())
}

func expand(ctx context.Context, client kubernetes.Interface, claim *core.PersistentVolumeClaim) error {
	wanted := claim.Spec.Resources.Requests[core.ResourceStorage]
	granted := claim.Status.Capacity[core.ResourceStorage]
	if claim.Status.Phase != core.ClaimBound || wanted.Cmp(granted) <= 0 {
		return nil
	}
	volumes := client.CoreV1().PersistentVolumes()
	v, err := volumes.Get(ctx, claim.Spec.VolumeName, meta.GetOptions{})
	if err != nil || v.Annotations["pv.kubernetes.io/provisioned-by"] != provisionerName {
		return err
	}
	capacity := map[string]any{"capacity": map[string]string{"storage": wanted.String()}}
	if _, err := volumes.Patch(ctx, v.Name, types.MergePatchType, patch("spec", capacity), meta.PatchOptions{}); err != nil {
		return err
	}
	_, err = client.CoreV1().PersistentVolumeClaims(claim.Namespace).
		Patch(ctx, claim.Name, types.MergePatchType, patch("status", capacity), meta.PatchOptions{}, "status")
	return err
}

func patch(field string, value any) []byte {
	body, err := json.Marshal(map[string]any{field: value})
	if err != nil {
		panic(err) // maps of strings always marshal
	}
	return body
}
