"""The networks of the zoo, by library and family."""

from __future__ import annotations

from dataclasses import dataclass

TORCHVISION = {
    "AlexNet": "alexnet",
    "ResNet": "resnet18 resnet34 resnet50 resnet101 resnet152",
    "ResNeXt": "resnext50_32x4d resnext101_32x8d resnext101_64x4d",
    "Wide ResNet": "wide_resnet50_2 wide_resnet101_2",
    "VGG": "vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn",
    "DenseNet": "densenet121 densenet161 densenet169 densenet201",
    "Inception": "googlenet inception_v3",
    "SqueezeNet": "squeezenet1_0 squeezenet1_1",
    "ShuffleNet": "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0",
    "MobileNet": "mobilenet_v2 mobilenet_v3_small mobilenet_v3_large",
    "MNASNet": "mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3",
    "EfficientNet": "efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 "
    "efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 "
    "efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l",
    "RegNet": "regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf "
    "regnet_x_16gf regnet_x_32gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf "
    "regnet_y_8gf regnet_y_16gf regnet_y_32gf",
    "ConvNeXt": "convnext_tiny convnext_small convnext_base convnext_large",
    "MaxViT": "maxvit_t",
    "Swin": "swin_t swin_s swin_b swin_v2_t swin_v2_s swin_v2_b",
    "ViT": "vit_b_16 vit_b_32",
    "Segmentation": "fcn_resnet50 fcn_resnet101 deeplabv3_resnet50 deeplabv3_resnet101 "
    "deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large",
}

TIMM = {
    "ResNet": "resnet10t resnet18d resnet26t resnet50c resnet50s resnet50_gn resnetaa50d "
    "resnetblur18 resnetrs50 seresnet18 seresnext26d_32x4d ecaresnet26t ecaresnext26t_32x4d",
    "ResNet v2": "resnetv2_18 resnetv2_50d_gn resnetv2_50d_evos resnetv2_50d_frn resnetv2_50x1_bit",
    "ByobNet": "gcresnet33ts resnet51q resnet50_mlp bat_resnext26ts gernet_s regnetz_b16 "
    "regnetz_b16_evos resnet50_clip",
    "RepVGG": "repvgg_a0 repvgg_b1g4 repvgg_d2se",
    "MobileOne": "mobileone_s0 mobileone_s1 mobileone_s4",
    "Attention in ResNet": "botnet26t_256 sebotnet33ts_256 eca_botnext26ts_256 halonet26t "
    "eca_halonext26ts sehalonet33ts lambda_resnet26t lambda_resnet26rpt_256",
    "SK": "skresnet18 skresnet50d skresnext50_32x4d",
    "ResNeSt": "resnest14d resnest50d_4s2x40d",
    "Res2Net": "res2net50_26w_4s res2net50d res2next50",
    "SENet": "legacy_seresnet18 legacy_seresnext26_32x4d legacy_senet154",
    "TResNet": "tresnet_m tresnet_v2_l",
    "HRNet": "hrnet_w18_small hrnet_w18",
    "DLA": "dla34 dla46x_c dla60_res2net",
    "GhostNet": "ghostnet_050 ghostnet_100 ghostnetv2_100 ghostnetv3_050",
    "RepGhost": "repghostnet_050 repghostnet_100",
    "CSP": "cspresnet50 cspresnext50 cspdarknet53 darknet53 cs3darknet_focus_s cs3sedarknet_l "
    "cs3edgenet_x cspnext_tiny",
    "VoVNet": "ese_vovnet19b_dw ese_vovnet39b eca_vovnet39b vovnet39a",
    "DPN": "dpn48b dpn68b",
    "DenseNet": "densenetblur121d rdnet_tiny",
    "SelecSLS": "selecsls42b selecsls60",
    "HGNet": "hgnet_tiny hgnetv2_b0",
    "NFNet": "dm_nfnet_f0 nfnet_l0 eca_nfnet_l0 nf_regnet_b1 nf_resnet50",
    "ReXNet": "rexnet_100 rexnetr_100",
    "MixNet": "mixnet_s mixnet_l",
    "EfficientNet": "efficientnet_b0_gn efficientnet_b0_g16_evos efficientnet_blur_b0 "
    "efficientnet_cc_b0_4e efficientnet_es efficientnet_lite0 efficientnetv2_rw_t "
    "gc_efficientnetv2_rw_t tf_efficientnet_b0 tf_efficientnetv2_b0 efficientnet_x_b3",
    "MobileNet": "mobilenetv1_100 mobilenet_edgetpu_v2_s mobilenetv3_small_100 "
    "tf_mobilenetv3_large_minimal_100 mobilenetv4_conv_small mobilenetv4_conv_aa_medium "
    "mobilenetv4_conv_blur_medium mobilenetv4_hybrid_medium mobilenetv5_base",
    "Searched": "fbnetc_100 fbnetv3_b hardcorenas_a mnasnet_small semnasnet_075 spnasnet_100 "
    "tinynet_e lcnet_050 lcnetv2_base",
    "NASNet": "nasnetalarge pnasnet5large",
    "Inception": "inception_v4 inception_resnet_v2",
    "Xception": "legacy_xception xception41 xception41p",
    "RegNet": "regnetx_002 regnety_002 regnetv_040 regnetz_005 regnety_040_sgn",
    "ConvNeXt": "convnext_atto convnext_atto_rms convnextv2_atto convnext_tiny_hnf",
    "InceptionNeXt": "inception_next_atto inception_next_tiny",
    "ConvMixer": "convmixer_768_32",
    "StarNet": "starnet_s1 starnet_s050",
    "FasterNet": "fasternet_t0 fasternet_s",
    "RepViT": "repvit_m0_9 repvit_m1",
    "FastViT": "fastvit_t8 fastvit_sa12 fastvit_mci0",
    "EdgeNeXt": "edgenext_xx_small edgenext_small",
    "MobileViT": "mobilevit_xxs mobilevit_s mobilevitv2_050",
    "LeViT": "levit_128s levit_conv_128s",
    "PoolFormer": "poolformer_s12 poolformerv2_s12 convformer_s18 caformer_s18",
    "EfficientFormer": "efficientformer_l1 efficientformerv2_s0",
    "EfficientViT": "efficientvit_b0 efficientvit_l1 efficientvit_m0",
    "MambaOut": "mambaout_femto",
    "CoAtNet": "coatnet_nano_rw_224 coatnext_nano_rw_224 maxvit_nano_rw_256 "
    "maxxvit_rmlp_nano_rw_256",
    "FocalNet": "focalnet_tiny_srf",
    "NextViT": "nextvit_small",
    "SwiftFormer": "swiftformer_xs",
    "SHViT": "shvit_s1",
    "LowFormer": "lowformer_b0",
    "iFormer": "iformer_t",
    "CPUBone": "cpubone_nano cpubone_b0_bfrobust",
    "EfficientViM": "efficientvim_m1",
    "CSATv2": "csatv2",
    "GCViT": "gcvit_xxtiny",
    "TinyViT": "tiny_vit_5m_224",
    "DaViT": "davit_tiny",
    "PVT": "pvt_v2_b0 pvt_v2_b2_li",
    "CoaT": "coat_lite_tiny",
    "CrossViT": "crossvit_9_dagger_240",
    "Visformer": "visformer_tiny",
    "ViT with a stem": "vit_tiny_r_s16_p8_224 vit_small_r26_s32_224 vit_base_mci_224",
    "ViTamin": "vitamin_small_224",
    "XCiT": "xcit_nano_12_p16_224",
    "VOLO": "volo_d1_224",
    "Twins": "twins_svt_small",
    "Sequencer": "sequencer2d_s",
}

VARIANTS = ("torchscript-folded", "torchscript-unfolded", "dynamo-folded", "dynamo-unfolded")
"""Exporter, and whether it folded BatchNormalization."""


@dataclass(frozen=True)
class Network:
    """A network of a library.

    Attributes:
        library: `torchvision` or `timm`.
        family: What people call its kind.
        name: Its name in the library.
    """

    library: str
    family: str
    name: str

    @property
    def id(self) -> str:
        """Library and name: a file name."""
        return f"{self.library}.{self.name}"


NETWORKS = tuple(
    Network(library, family, name)
    for library, families in (("torchvision", TORCHVISION), ("timm", TIMM))
    for family, names in families.items()
    for name in names.split()
)
