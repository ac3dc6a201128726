/*
 * What QEMU's Nitro Secure Module lacks, added to virtio-nsm.c by scripts/sandbox:
 *
 *   -global virtio-nsm-device.signer=CHARDEV   each attestation document goes to whatever listens there, and comes back signed
 *   -global virtio-nsm-device.debug=on         PCR0, PCR1 and PCR2 are zero, as in an enclave that was started in debug mode
 *
 * Both ways over the character device: a little-endian 32-bit length, and that many bytes. Length 0 coming back: the signer
 * refuses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/bswap.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"

/* Has the document in buf signed, in place. Gives its new length, or 0 if there is no signed document. */
static size_t nsm_signed(VirtIONSM *vnsm, uint8_t *buf, size_t len, size_t room)
{
    uint8_t word[4];
    size_t got;

    if (!qemu_chr_fe_backend_connected(&vnsm->signer)) {
        return len;
    }
    stl_le_p(word, len);
    if (qemu_chr_fe_write_all(&vnsm->signer, word, sizeof(word)) != sizeof(word) ||
        qemu_chr_fe_write_all(&vnsm->signer, buf, len) != len ||
        qemu_chr_fe_read_all(&vnsm->signer, word, sizeof(word)) != sizeof(word)) {
        return 0;
    }
    got = ldl_le_p(word);
    if (got > room || qemu_chr_fe_read_all(&vnsm->signer, buf, got) != got) {
        return 0;
    }
    return got;
}

/* The machine locks its registers after it has filled them. */
static void nsm_locked(VirtIONSM *vnsm, int index)
{
    if (vnsm->debug && index <= 2) {
        memset(vnsm->pcrs[index].data, 0, sizeof(vnsm->pcrs[index].data));
    }
}
