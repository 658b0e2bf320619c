"""Which artwork serves which intention: the curated table behind the embedded gallery.

Entries are the names the package ``emoji`` (CLDR short names, lower case, "_" between words) gives
an emoji; "person_x*" stands for the person, the man and the woman doing x, and "people_x*" for
people, men and women. An emoji may serve several intentions. The first intentions of GoEmotions
come first; docs/data.md says how the table was made and what it cannot claim.
"""

INTENTIONS: dict[str, str] = {
    "admiration": """
        clapping_hands thumbs_up star-struck smiling_face_with_sunglasses raising_hands trophy
        1st_place_medal 2nd_place_medal 3rd_place_medal sports_medal military_medal star
        glowing_star sparkles fire cool_button top_arrow crown gem_stone person_with_crown
        flexed_biceps smiling_cat_with_heart-eyes superhero man_superhero woman_superhero
        love-you_gesture japanese_congratulations_button cowboy_hat_face unicorn lion
        person_lifting_weights* man_singer woman_singer rainbow shooting_star dizzy man_artist
        woman_artist man_astronaut woman_astronaut nerd_face man_student woman_student bouquet
        pinched_fingers""",
    "amusement": """
        face_with_tears_of_joy rolling_on_the_floor_laughing grinning_squinting_face
        grinning_face_with_sweat grinning_face grinning_face_with_smiling_eyes
        cat_with_tears_of_joy grinning_cat grinning_cat_with_smiling_eyes
        squinting_face_with_tongue winking_face_with_tongue face_with_tongue zany_face clown_face
        face_with_hand_over_mouth smirking_face skull upside-down_face winking_face jack-o-lantern
        see-no-evil_monkey monkey_face monkey pile_of_poo ghost cat_with_wry_smile
        beaming_face_with_smiling_eyes smiling_face_with_horns alien_monster alien frog t-rex
        goblin disguised_face melting_face popcorn hatching_chick""",
    "annoyance": """
        face_with_rolling_eyes unamused_face face_with_steam_from_nose person_facepalming*
        person_pouting* angry_face enraged_face face_with_symbols_on_mouth pouting_cat
        anger_symbol right_anger_bubble expressionless_face angry_face_with_horns tired_face
        persevering_face weary_face face_exhaling ogre skunk fly oncoming_fist bomb""",
    "approval": """
        ok_hand thumbs_up check_mark check_mark_button check_box_with_check hundred_points
        ok_button person_gesturing_ok* handshake head_shaking_vertically oncoming_fist
        left-facing_fist right-facing_fist raised_fist index_pointing_up call_me_hand
        backhand_index_pointing_up person_raising_hand* bullseye on!_arrow victory_hand up!_button
        japanese_acceptable_button japanese_passing_grade_button saluting_face raised_hand
        vulcan_salute folded_hands puzzle_piece people_holding_hands rightwards_hand
        leftwards_hand key people_with_bunny_ears* backhand_index_pointing_down
        backhand_index_pointing_left backhand_index_pointing_right""",
    "caring": """
        smiling_face_with_open_hands people_hugging heart_hands mending_heart pleading_face
        palms_up_together two_hearts heart_with_ribbon teddy_bear person_feeding_baby*
        adhesive_bandage yellow_heart light_blue_heart hot_beverage bouquet tulip sunflower
        man_health_worker woman_health_worker smiling_face_with_halo dove hatching_chick koala
        panda dog_face rabbit_face open_hands candle hand_with_fingers_splayed women_holding_hands
        men_holding_hands woman_and_man_holding_hands umbrella_with_rain_drops seedling
        service_dog penguin palm_up_hand baby_angel""",
    "confusion": """
        thinking_face confused_face red_question_mark white_question_mark
        exclamation_question_mark person_shrugging* face_with_spiral_eyes
        face_with_crossed-out_eyes woozy_face face_with_diagonal_mouth face_with_raised_eyebrow
        upside-down_face thought_balloon puzzle_piece cyclone dotted_line_face face_in_clouds
        face_without_mouth neutral_face sloth distorted_face""",
    "curiosity": """
        eyes face_with_monocle thinking_face magnifying_glass_tilted_left
        magnifying_glass_tilted_right detective man_detective woman_detective microscope telescope
        face_with_raised_eyebrow red_question_mark eye cat_face owl face_with_peeking_eye
        light_bulb books speech_balloon eye_in_speech_bubble man_scientist woman_scientist
        thought_balloon crystal_ball raccoon fox information brain""",
    "desire": """
        drooling_face face_savoring_food pleading_face money-mouth_face crossed_fingers
        hand_with_index_finger_and_thumb_crossed shooting_star wrapped_gift pizza hamburger
        doughnut ice_cream cookie chocolate_bar birthday_cake genie man_genie woman_genie
        biting_lip star-struck money_bag tongue fork_and_knife""",
    "disappointment": """
        disappointed_face pensive_face unamused_face thumbs_down slightly_frowning_face
        frowning_face downcast_face_with_sweat person_frowning* chart_decreasing weary_face
        wilted_flower person_facepalming* face_exhaling cloud_with_rain sad_but_relieved_face
        ng_button cross_mark tired_face low_battery broken_chain face_with_diagonal_mouth
        leafless_tree melting_face end_arrow weary_cat face_with_bags_under_eyes hole""",
    "disapproval": """
        thumbs_down person_gesturing_no* head_shaking_horizontally cross_mark cross_mark_button
        prohibited no_entry ng_button stop_sign expressionless_face unamused_face
        face_with_raised_eyebrow pouting_cat rightwards_pushing_hand leftwards_pushing_hand
        raised_hand lying_face face_with_rolling_eyes zipper-mouth_face japanese_prohibited_button
        speak-no-evil_monkey hear-no-evil_monkey raised_back_of_hand palm_down_hand
        person_pouting*""",
    "disgust": """
        nauseated_face face_vomiting pile_of_poo confounded_face face_with_medical_mask cockroach
        worm fly rat spider bug microbe skunk toilet sneezing_face grimacing_face pig_nose
        woozy_face garlic""",
    "embarrassment": """
        flushed_face grimacing_face see-no-evil_monkey face_with_peeking_eye person_facepalming*
        grinning_face_with_sweat face_with_hand_over_mouth face_with_open_eyes_and_hand_over_mouth
        melting_face speak-no-evil_monkey hear-no-evil_monkey person_tipping_hand*
        dotted_line_face smiling_face_with_tear anxious_face_with_sweat downcast_face_with_sweat
        zipper-mouth_face hole shaking_face""",
    "excitement": """
        partying_face star-struck party_popper confetti_ball raising_hands fireworks sparkler
        rocket man_dancing woman_dancing collision roller_coaster person_cartwheeling*
        people_with_bunny_ears* bottle_with_popping_cork balloon fire high_voltage exploding_head
        grinning_face_with_big_eyes soon_arrow pinata musical_notes person_surfing* popcorn
        person_bouncing_ball* heart_on_fire person_running* double_exclamation_mark
        red_exclamation_mark new_button person_biking* hundred_points person_juggling*""",
    "fear": """
        face_screaming_in_fear fearful_face anxious_face_with_sweat anguished_face weary_cat
        shaking_face ghost skull skull_and_crossbones spider spider_web zombie man_zombie
        woman_zombie vampire man_vampire woman_vampire worried_face frowning_face_with_open_mouth
        person_running* warning police_car_light sos_button bat ogre goblin shark snake
        jack-o-lantern coffin cold_face hedgehog smiling_face_with_horns mouse_face grimacing_face
        headstone""",
    "gratitude": """
        folded_hands person_bowing* smiling_face_with_smiling_eyes smiling_face_with_open_hands
        heart_hands bouquet wrapped_gift smiling_face_with_hearts two_hearts palms_up_together
        people_hugging heart_with_ribbon face_holding_back_tears cherry_blossom red_heart
        sparkling_heart rose tulip sunflower love_letter handshake smiling_face clinking_glasses
        face_blowing_a_kiss person_kneeling* hot_beverage slightly_smiling_face revolving_hearts
        smiling_face_with_halo clinking_beer_mugs orange_heart""",
    "joy": """
        smiling_face_with_smiling_eyes grinning_face_with_big_eyes slightly_smiling_face
        smiling_face beaming_face_with_smiling_eyes grinning_face grinning_cat sun_with_face sun
        smiling_face_with_halo grinning_face_with_smiling_eyes partying_face rainbow
        grinning_cat_with_smiling_eyes sunflower man_dancing woman_dancing
        smiling_face_with_hearts balloon birthday_cake butterfly party_popper full_moon_face
        four_leaf_clover dolphin snowman dog face_holding_back_tears relieved_face
        person_cartwheeling* monkey_face person_juggling* last_quarter_moon_face
        first_quarter_moon_face""",
    "love": """
        red_heart smiling_face_with_heart-eyes smiling_face_with_hearts face_blowing_a_kiss
        heart_hands sparkling_heart growing_heart beating_heart revolving_hearts two_hearts
        heart_with_arrow heart_with_ribbon purple_heart blue_heart green_heart orange_heart
        pink_heart white_heart black_heart brown_heart grey_heart light_blue_heart yellow_heart
        heart_decoration heart_exclamation heart_on_fire kissing_face
        kissing_face_with_closed_eyes kissing_face_with_smiling_eyes kissing_cat
        smiling_cat_with_heart-eyes love_letter love-you_gesture couple_with_heart kiss kiss_mark
        rose anatomical_heart ring cat_face dog_face panda
        hand_with_index_finger_and_thumb_crossed mouth teddy_bear rabbit_face
        couple_with_heart_woman_man couple_with_heart_man_man couple_with_heart_woman_woman
        people_hugging""",
    "optimism": """
        crossed_fingers four_leaf_clover thumbs_up flexed_biceps rainbow folded_hands
        sun_behind_small_cloud seedling star raised_fist person_raising_hand* chart_increasing
        light_bulb sun shooting_star rocket magic_wand bullseye person_climbing* soon_arrow
        victory_hand superhero man_superhero woman_superhero glowing_star crystal_ball
        person_running* dove smiling_face_with_smiling_eyes rightwards_hand mending_heart fairy
        man_fairy woman_fairy top_arrow unicorn""",
    "realization": """
        light_bulb face_with_open_mouth hushed_face index_pointing_up exploding_head ok_hand
        thinking_face head_shaking_vertically face_with_monocle bullseye red_exclamation_mark
        white_exclamation_mark speech_balloon sparkles person_tipping_hand* check_mark key brain
        backhand_index_pointing_up face_with_open_eyes_and_hand_over_mouth bell puzzle_piece
        man_teacher woman_teacher owl eyes thought_balloon nerd_face magnifying_glass_tilted_right
        hatching_chick person_facepalming* writing_hand relieved_face information back_arrow
        man_technologist woman_technologist""",
    "relief": """
        relieved_face face_exhaling grinning_face_with_sweat person_in_lotus_position*
        person_in_steamy_room* dove sad_but_relieved_face folded_hands slightly_smiling_face""",
    "remorse": """
        person_bowing* pensive_face folded_hands pleading_face sad_but_relieved_face
        disappointed_face downcast_face_with_sweat crying_face person_kneeling* worried_face
        confounded_face crying_cat person_facepalming* broken_heart loudly_crying_face
        smiling_face_with_tear anguished_face face_holding_back_tears people_hugging
        adhesive_bandage bouquet grimacing_face mending_heart see-no-evil_monkey dove
        person_frowning* wilted_flower persevering_face face_with_head-bandage""",
    "sadness": """
        crying_face loudly_crying_face sad_but_relieved_face pensive_face broken_heart crying_cat
        frowning_face slightly_frowning_face worried_face anguished_face
        frowning_face_with_open_mouth face_holding_back_tears smiling_face_with_tear
        person_frowning* wilted_flower cloud_with_rain pleading_face droplet weary_face
        disappointed_face confounded_face persevering_face black_heart umbrella_with_rain_drops
        face_with_head-bandage headstone coffin teddy_bear candle new_moon_face tired_face
        weary_cat people_hugging face_with_thermometer leafless_tree adhesive_bandage
        mending_heart""",
    "surprise": """
        astonished_face face_with_open_mouth hushed_face exploding_head flushed_face
        face_screaming_in_fear weary_cat face_with_open_eyes_and_hand_over_mouth
        exclamation_question_mark double_exclamation_mark red_exclamation_mark collision
        star-struck anguished_face eyes face_with_raised_eyebrow shaking_face high_voltage
        blowfish wrapped_gift dizzy frowning_face_with_open_mouth face_with_hand_over_mouth
        fireworks hatching_chick magic_wand distorted_face white_exclamation_mark cow_face alien
        face_with_spiral_eyes see-no-evil_monkey bomb mage man_mage woman_mage
        face_with_crossed-out_eyes""",
    "neutral": """
        waving_hand ok_hand neutral_face slightly_smiling_face thumbs_up saluting_face ok_button
        raised_hand hand_with_fingers_splayed person_raising_hand* victory_hand vulcan_salute
        call_me_hand person_walking* person_standing* sleeping_face sleepy_face zzz yawning_face
        person_in_bed expressionless_face face_without_mouth person_tipping_hand* back_arrow
        end_arrow robot bell telephone_receiver check_mark_button backhand_index_pointing_right
        person_in_suit_levitating zipper-mouth_face turtle person_bowing* sloth
        raised_back_of_hand sun full_moon_face door hot_beverage""",
}

# The writing that the artwork itself shows; all other artwork shows none.
VERBAL: dict[str, str] = {
    "cool_button": "COOL",
    "ok_button": "OK",
    "sos_button": "SOS",
    "ng_button": "NG",
    "up!_button": "UP!",
    "new_button": "NEW",
    "on!_arrow": "ON!",
    "top_arrow": "TOP",
    "soon_arrow": "SOON",
    "back_arrow": "BACK",
    "end_arrow": "END",
    "hundred_points": "100",
    "zzz": "ZZZ",
    "1st_place_medal": "1",
    "2nd_place_medal": "2",
    "3rd_place_medal": "3",
    "red_question_mark": "?",
    "white_question_mark": "?",
    "red_exclamation_mark": "!",
    "white_exclamation_mark": "!",
    "double_exclamation_mark": "!!",
    "exclamation_question_mark": "!?",
    "information": "i",
    "stop_sign": "STOP",
    "japanese_congratulations_button": "祝",
    "japanese_acceptable_button": "可",
    "japanese_passing_grade_button": "合",
    "japanese_prohibited_button": "禁",
}
