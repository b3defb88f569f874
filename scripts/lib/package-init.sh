#!/bin/busybox sh
# /init of the initramfs with which the machine of scripts/package-image boots: finds the disk and
# starts systemd on it.

/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in virtio_pci virtio_blk ext4; do modprobe "$module"; done
mount -t ext4 /dev/vda /new
mount --move /dev /new/dev
umount /proc
exec switch_root /new /sbin/init
